"""The version in files that are not built: manifests, samples and pages that name an image of this project.

``operator/finetune_operator/__init__.py`` holds the version. ``hack/generate.py`` writes it into these files, and checks it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from finetune_operator.api.stages import IMAGES

FOLDERS = ("manifests", "docs")
SUFFIXES = frozenset({".yaml", ".md"})
NAME = rf"(?<![\w-])(?P<name>finetune[-/](?:operator|stages|{'|'.join(IMAGES)})(?:-cuda)?)"
"""The name of an image of this project, with or without a registry before it."""
IMAGE = re.compile(rf"{NAME}:\d+\.\d+\.\d+\b(?![-+\w])")
"""A reference to an image of a release."""


def update(text: str, version: str) -> str:
    """Return ``text`` with ``version`` in every reference to an image of this project."""
    return IMAGE.sub(rf"\g<name>:{version}", text)


def files(root: Path, version: str) -> Iterator[tuple[Path, str]]:
    """Yield every file that names an image of this project, with the text that it has for ``version``."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES and IMAGE.search(text := path.read_text(encoding="utf-8")):
                yield path, update(text, version)
