"""Logs of containers, read from the files that the runner writes them to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finetune_operator.loop.cluster import Object

LogFile = Callable[[Object, str], Path]
"""The file that holds the output of a pod's container; it need not be there before the container has started."""

_BLOCK = 64 * 1024


def container_of(pod: Object, container: str | None) -> str | None:
    """The container that is meant: the one of that name, or the only one. ``None`` where there is no such."""
    names: list[str] = [one["name"] for one in (pod.get("spec") or {}).get("containers", ())]
    if container is None:
        return names[0] if names else None
    return container if container in names else None


def read_log(path: Path, tail_lines: int | None, limit_bytes: int | None, start: int = 0) -> bytes:
    """A part of a log: from ``start``, only the last ``tail_lines`` lines of that, only the first ``limit_bytes`` of those.

    Raises:
        FileNotFoundError: the container has not started.
    """
    with path.open("rb") as log:
        if tail_lines is not None:
            log.seek(0, 2)
            start = max(start, _start_of_tail(path, log.tell(), tail_lines))
        log.seek(start)
        return log.read(-1 if limit_bytes is None else limit_bytes)


def _start_of_tail(path: Path, size: int, lines: int) -> int:
    """Where the last ``lines`` lines begin, found from the end."""
    if lines == 0:
        return size
    with path.open("rb") as log:
        position, missing = size, lines
        while position > 0:
            begin = max(0, position - _BLOCK)
            log.seek(begin)
            block = log.read(position - begin)
            if position == size and block.endswith(b"\n"):
                missing += 1
            found = block.count(b"\n")
            if found >= missing:
                for _ in range(missing):
                    block = block[: block.rindex(b"\n")]
                return begin + len(block) + 1
            missing -= found
            position = begin
    return 0
