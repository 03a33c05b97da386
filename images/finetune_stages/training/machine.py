"""Resources of this container: memory, processors, free space, within the limits of its control groups."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def available_memory(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int | None:
    """Return the bytes that can still be allocated within the machine's memory and the pod's limit.

    ``None`` if neither is known.
    """
    known = [*_left_in_groups(cgroups, proc), _left_in_machine(proc)]
    return min((number for number in known if number is not None), default=None)


def killed_for_memory(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Return the number of out-of-memory kills in this container so far."""
    counts = [_entry(group / "memory.events", "oom_kill") for group in _groups(cgroups, proc)]
    return max((count for count in counts if count is not None), default=0)


def processors(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Return the number of processors of this container; ``os.cpu_count()`` ignores a pod's limit."""
    shares = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for group in _groups(cgroups, proc):
        try:
            quota, period = (group / "cpu.max").read_text().split()
            shares.append(max(1, round(int(quota) / int(period))))
        except (OSError, ValueError):  # no limit, or no such control group
            continue
    return min(shares)


def free_room(directory: Path) -> int:
    """Return the free bytes of the volume with ``directory``."""
    return shutil.disk_usage(directory).free


def peak_memory() -> int:
    """Return the peak CPU memory of this process in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def readable(number: float) -> str:
    """Return a number of bytes as text: ``12.3 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _groups(cgroups: Path, proc: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group (version 2) and of its ancestors, as far as they are visible."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    name = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    folder = cgroups / name
    if not folder.is_dir():  # inside a container the path may be outside the visible tree
        folder = cgroups
    while True:
        yield folder
        if folder == cgroups:
            return
        folder = folder.parent


def _left_in_groups(cgroups: Path, proc: Path) -> Iterator[int | None]:
    for group in _groups(cgroups, proc):
        try:
            limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        except (OSError, ValueError):  # "max", or a kernel without them
            continue
        cached = _entry(group / "memory.stat", "inactive_file") or 0  # counted as used, but reclaimable
        yield max(0, limit - (used - cached))


def _left_in_machine(proc: Path) -> int | None:
    kibibytes = _entry(proc / "meminfo", "MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _entry(path: Path, name: str) -> int | None:
    """Return the value of ``name`` in one of the kernel's tables."""
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1])
    except (OSError, ValueError, IndexError):
        pass
    return None
