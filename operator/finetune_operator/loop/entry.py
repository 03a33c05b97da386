"""The training program as one zip application: it runs on whatever image the training runtime names.

The stage programs are read as files, never imported: the control plane knows them as programs only.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
import zlib
from collections.abc import Iterable
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
_LARGEST = 64 << 20
"""Bytes of all files of an archive that is opened: a ConfigMap of 1 MiB can hold a thousand times that."""


@dataclass(frozen=True)
class Entry:
    """The program: SHA-256 over its files, and the zip application as base64."""

    digest: str
    archive: str


@cache
def training_entry() -> Entry:
    """The zip application of this release."""
    files = sorted(_files().items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return Entry(_digest(files), base64.b64encode(buffer.getvalue()).decode())


def archive_digest(archive: str) -> str | None:
    """Return the digest of the files in an archive, as :class:`Entry` has it; ``None`` where it is no archive of that kind."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive, validate=True))) as opened:
            if sum(entry.file_size for entry in opened.infolist()) > _LARGEST:
                return None
            return _digest([(entry.filename, opened.read(entry)) for entry in opened.infolist()])
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return None


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    mark = hashlib.sha256()
    for name, content in files:
        mark.update(f"{name}\0{len(content)}\0".encode() + content)
    return mark.hexdigest()


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
