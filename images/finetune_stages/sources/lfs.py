"""Git LFS pointers: a few lines of text that a clone without ``git lfs`` holds in place of a large file."""

from __future__ import annotations

_HEAD = b"version https://git-lfs.github.com/spec/v1"


def is_pointer(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is such a pointer."""
    return head.startswith(_HEAD)


def pointer_remedy(name: str) -> str:
    """How to get the file itself; ``name`` is its path or its address."""
    if "://" in name:
        return "use the address that serves the file's content (at the hub: /resolve/ in place of /raw/)"
    return "run git lfs pull in its repository"
