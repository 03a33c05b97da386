"""A process and its descendants. torchrun starts each worker in a session of its own, which no signal to a process group reaches."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
Member = tuple[int, str]
"""ID of a process and its start time, which identify it: IDs are used again."""


def process_tree(pid: int) -> set[Member]:
    """Return a process and its descendants."""
    known: dict[int, Member] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and (stat := _stat(folder)):
            one = int(folder.name)
            known[one] = (one, stat[_STARTED])
            children[int(stat[1])].append(one)
    found, left = set(), [pid]
    while left:
        one = left.pop()
        left += children[one]
        found |= {known[one]} if one in known else set()
    return found


def send(number: signal.Signals, members: Iterable[Member]) -> None:
    """Send a signal to processes, as far as they still run."""
    for pid, _ in running(members):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def running(members: Iterable[Member]) -> set[Member]:
    """Return which of these processes still run."""
    stats = {member: _stat(_PROC / str(member[0])) for member in members}
    return {member for member, stat in stats.items() if stat and stat[0] != "Z" and stat[_STARTED] == member[1]}


_STARTED = 19


def _stat(folder: Path) -> list[str]:
    """Return state, parent and the other fields behind the name of a process, which may contain blanks; empty if it is gone."""
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
