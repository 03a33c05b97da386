"""Git LFS pointers: the few lines of text that a clone without Git LFS holds in place of a large file."""

from __future__ import annotations

from pathlib import Path

_HEAD = b"version https://git-lfs.github.com/spec/"
"""Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
_LARGEST = 1024
"""Bytes below which a pointer stays, by the specification."""


def is_pointer(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is such a pointer."""
    return head.startswith(_HEAD)


def is_pointer_file(path: Path) -> bool:
    """Return whether ``path`` is such a pointer and not the file that it stands for."""
    if path.stat().st_size >= _LARGEST:
        return False
    with path.open("rb") as stream:
        return is_pointer(stream.read(len(_HEAD)))


def pointer_remedy(name: str) -> str:
    """Return how to get the file itself; ``name`` is its path or its address."""
    if "://" in name:
        return "use the address that serves the file's content (at the hub: /resolve/ in place of /raw/)"
    return "run git lfs pull in its repository"
