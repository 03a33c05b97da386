"""Archives that are the same bytes whenever they are made of the same files."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import IO


def write(folder: Path, target: Path, epoch: int, prefix: str = "") -> None:
    """Write all files of a folder into a tar archive: sorted, of one time, and owned by root.

    Args:
        folder: its files, with their paths in it.
        target: the archive, compressed if its name ends in ``.gz``.
        epoch: modification time of every member, in seconds.
        prefix: folder in the archive that the files are put into.
    """
    with target.open("wb") as file:
        if target.suffix == ".gz":
            with gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as compressed:
                _write(folder, compressed, epoch, prefix)
        else:
            _write(folder, file, epoch, prefix)


def _write(folder: Path, file: IO[bytes] | gzip.GzipFile, epoch: int, prefix: str) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(str(Path(prefix, path.relative_to(folder))))
            member.size, member.mtime, member.mode = path.stat().st_size, epoch, 0o644
            with path.open("rb") as content:
                archive.addfile(member, content)
