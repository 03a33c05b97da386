"""Logs of containers, read from the files of the kubelet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finetune_operator.loop.cluster import Object

LogFile = Callable[[Object, str], Path]
"""Returns the file with the output of a pod's container; it may not exist before the container has started."""

_BLOCK = 64 * 1024


def container_of(pod: Object, container: str | None) -> str | None:
    """Return the container with a name, or the only one; ``None`` if there is none."""
    names: list[str] = [one["name"] for one in (pod.get("spec") or {}).get("containers", ())]
    if container is None:
        return names[0] if names else None
    return container if container in names else None


def read_log(path: Path, tail_lines: int | None, limit_bytes: int | None, start: int = 0) -> bytes:
    """Return a part of a log: from ``start``, its last ``tail_lines`` lines, and the first ``limit_bytes`` of these.

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
    """Return the offset of the last ``lines`` lines, searching backwards."""
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
