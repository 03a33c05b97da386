"""Progress of set-up on the screen: number and total of steps, and the duration of each, now and the last time.

Standard library only: the environment is made with it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

_SHORTEST_SHOWN = 3.0
"""Seconds; a shorter earlier duration is not printed."""


@dataclass
class _Count:
    total: int
    started: int


_count: ContextVar[_Count | None] = ContextVar("count", default=None)


@contextmanager
def counted(total: int, first: int = 1) -> Iterator[None]:
    """Number the steps in this context from ``first``, out of ``total``."""
    token = _count.set(_Count(total, first - 1))
    try:
        yield
    finally:
        _count.reset(token)


@contextmanager
def step(what: str, key: str) -> Iterator[None]:
    """Print a step at its start and, when this context ends without an exception, its duration.

    Args:
        what: the text, such as ``building etcd v3.6.5``.
        key: of the step in the record of durations; the same for all versions.
    """
    count, earlier = _count.get(), durations().get(key, 0.0)
    place = ""
    if count is not None:
        count.started += 1
        place = f"[{count.started}/{count.total}] "
    _print(f"{place}{what}{f' (took {earlier:.0f} s last time)' if earlier >= _SHORTEST_SHOWN else ''}")
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    _print(f"{place}{what}: done in {seconds:.0f} s")
    _record(key, seconds)


def estimate(keys: list[str]) -> float:
    """Return the seconds that these steps took the last time; steps without a record count as 0."""
    known = durations()
    return sum(known.get(key, 0.0) for key in keys)


def durations() -> dict[str, float]:
    """Return the seconds that each step took the last time, by key."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        return {str(key): float(seconds) for key, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def cache() -> Path:
    """Return the folder outside the checkout for everything that is built once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"


def _record(key: str, seconds: float) -> None:
    """Record a duration. Two processes at the same time may lose one, which is only a hint on the screen."""
    part = _file().with_suffix(f".{os.getpid()}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**durations(), key: round(seconds, 1)}, indent=1, sort_keys=True), encoding="utf-8")
        part.rename(_file())
    except OSError:  # only a hint on the screen is lost
        with suppress(OSError):
            part.unlink()


def _file() -> Path:
    return cache() / "durations.json"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
