"""The training program packaged as one zip application, which runs on any image that a training runtime names.

The stage programs are read as files and never imported: the control plane runs them only as programs.
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
    ("finetune_stages", "sdk"),
    ("finetune_stages", "training"),
)
_MAIN = "import sys\n\nfrom finetune_stages.training.__main__ import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Fixed time stamp of every file, so that the same sources produce the same archive."""
SIZE_LIMIT = 64 << 20
"""Total bytes of the files of an archive that is read: a ConfigMap of 1 MiB can expand to a thousand times its size."""


@dataclass(frozen=True)
class TrainingBundle:
    """A packaged program.

    Attributes:
        digest: SHA-256 over the names and contents of its files, as hexadecimal digits.
        archive: the zip application, base64-encoded.
    """

    digest: str
    archive: str


@cache
def training_bundle() -> TrainingBundle:
    """Return the training program of this release."""
    files = sorted(_files().items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return TrainingBundle(_digest(files), base64.b64encode(buffer.getvalue()).decode())


def bundle_digest(archive: str) -> str | None:
    """Return the :attr:`TrainingBundle.digest` of a base64-encoded archive; ``None`` if it is not a zip archive or is too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive, validate=True))) as opened:
            if sum(entry.file_size for entry in opened.infolist()) > SIZE_LIMIT:
                return None
            return _digest([(entry.filename, opened.read(entry)) for entry in opened.infolist()])
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return None


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    checksum = hashlib.sha256()
    for name, content in files:
        checksum.update(f"{name}\0{len(content)}\0".encode() + content)
    return checksum.hexdigest()


def _files() -> dict[str, bytes]:
    files = {"__main__.py": _MAIN.encode(), "finetune_stages/__init__.py": b""}
    for package, part in _PARTS:
        root = _package_folder(package)
        for path in sorted((root / part).rglob("*.py")):
            files[f"{package}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return files


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"Python package {package}: not installed; install it beside finetune_operator")
    return Path(spec.submodule_search_locations[0])
