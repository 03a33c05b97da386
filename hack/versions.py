"""The version in files that are not built: manifests, samples and pages that name an image of this project.

``operator/finetune_operator/__init__.py`` holds the version. ``hack/generate.py`` writes it into these files, and checks it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("manifests", "docs")
SUFFIXES = frozenset({".yaml", ".md"})
IMAGE = re.compile(
    r"(?<![\w-])(?P<name>finetune[-/](?:operator|stages|dataset|model|training|evaluation|registration)(?:-cuda)?):\d+\.\d+\.\d+\b(?![-+\w])"
)
"""A reference to an image of a release, with or without a registry before it."""


def update(text: str, version: str) -> str:
    """Return ``text`` with ``version`` in every reference to an image of this project."""
    return IMAGE.sub(rf"\g<name>:{version}", text)


def files(root: Path, version: str) -> Iterator[tuple[Path, str]]:
    """Yield every file that names an image of this project, with the text that it has for ``version``."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES and IMAGE.search(text := path.read_text(encoding="utf-8")):
                yield path, update(text, version)
