"""Git LFS pointers: the small text files that a clone without Git LFS has in place of large files."""

from __future__ import annotations

from pathlib import Path

_HEAD = b"version https://git-lfs.github.com/spec/"
"""Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
_LARGEST = 1024
"""Bytes below which a pointer stays, by the specification."""


def is_lfs_pointer(path: Path) -> bool:
    """Whether ``path`` is a Git LFS pointer and not the file that it stands for."""
    if path.stat().st_size >= _LARGEST:
        return False
    with path.open("rb") as stream:
        return stream.read(len(_HEAD)) == _HEAD
