"""The training program as one zip application: it runs on whatever image the training runtime names.

The stage programs are read as files, never imported: the control plane knows them as programs only.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PARTS = (
    ("finetune_contract", ""),
    ("finetune_stages", "kit"),
    ("finetune_stages", "training"),
)
_MAIN = "import sys\n\nfrom finetune_stages.training.__main__ import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""A fixed time stamp: the same sources make the same archive."""


@dataclass(frozen=True)
class Entry:
    """The program: SHA-256 over its files, and the zip application as base64."""

    digest: str
    archive: str


@cache
def training_entry() -> Entry:
    """The zip application of this release."""
    files = _files()
    mark = hashlib.sha256()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            mark.update(f"{name}\0{len(content)}\0".encode() + content)
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return Entry(mark.hexdigest(), base64.b64encode(buffer.getvalue()).decode())


def _files() -> dict[str, bytes]:
    files = {"__main__.py": _MAIN.encode(), "finetune_stages/__init__.py": b""}
    for package, part in _PARTS:
        root = _package_folder(package)
        for path in sorted((root / part).rglob("*.py")):
            files[f"{package}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return files


def _package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed beside the operator")
    return Path(found.submodule_search_locations[0])
