"""The cgroup of a node, which is the parent of all its containers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_UNIFIED = _ROOT / "cgroup.controllers"
_WANTED = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
_SECONDS = 10.0


def create(name: str) -> None:
    """Create the cgroup ``name`` in every hierarchy, with either version of cgroups."""
    if _UNIFIED.exists():
        for controller in set(_WANTED) & set(_UNIFIED.read_text(encoding="utf-8").split()):
            with suppress(OSError):  # the kernel may not delegate it; the kubelet reports missing ones
                (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}", encoding="utf-8")
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)


def remove(name: str) -> None:
    """Remove the cgroup ``name`` and all below it, when the last process has ended.

    Raises:
        TimeoutError: a process does not end.
    """
    deadline = time.monotonic() + _SECONDS
    while left := [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).exists()]:
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # busy; it is retried
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{', '.join(map(str, left))}: cgroups still in use; end their processes")
        time.sleep(0.05)


def _hierarchies() -> Iterator[Path]:
    """Yield the one hierarchy of version 2, or those of version 1."""
    if _UNIFIED.exists():
        yield _ROOT
        return
    for folder in _ROOT.iterdir():
        if folder.is_dir() and not folder.is_symlink() and folder.is_mount():
            yield folder
