"""The cgroup of a node: below it is every container, so that its end is theirs."""

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
    """Make the cgroup ``name`` in every hierarchy, whichever version of cgroups this system has."""
    if _UNIFIED.exists():
        for controller in set(_WANTED) & set(_UNIFIED.read_text(encoding="utf-8").split()):
            with suppress(OSError):  # one that the kernel holds back; the kubelet says which ones it misses
                (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}", encoding="utf-8")
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)


def remove(name: str) -> None:
    """Remove the cgroup ``name`` and all below it, as soon as the last process has left.

    Raises:
        TimeoutError: one does not leave.
    """
    deadline = time.monotonic() + _SECONDS
    while left := [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).exists()]:
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # busy: another look follows
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the cgroups {', '.join(map(str, left))} are still in use")
        time.sleep(0.05)


def _hierarchies() -> Iterator[Path]:
    """One with version 2, one for each group of controllers with version 1."""
    if _UNIFIED.exists():
        yield _ROOT
        return
    for folder in _ROOT.iterdir():
        if folder.is_dir() and not folder.is_symlink() and folder.is_mount():
            yield folder
