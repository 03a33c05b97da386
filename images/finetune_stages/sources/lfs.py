"""Git LFS pointers: short text files that a clone without Git LFS has instead of large files."""

from __future__ import annotations

from pathlib import Path

_HEAD = b"version https://git-lfs.github.com/spec/"
"""Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
_LARGEST = 1024
"""Size in bytes that a pointer stays below, by the specification."""


def is_pointer(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is a pointer."""
    return head.startswith(_HEAD)


def is_pointer_file(path: Path) -> bool:
    """Return whether ``path`` is a pointer and not the file itself."""
    if path.stat().st_size >= _LARGEST:
        return False
    with path.open("rb") as stream:
        return is_pointer(stream.read(len(_HEAD)))


def pointer_remedy(name: str) -> str:
    """Return the fix for a pointer; ``name`` is the file's path or address."""
    if "://" in name:
        return "use the address that serves the file's content (on the hub, /resolve/ instead of /raw/)"
    return "run git lfs pull in its repository"
