"""Limits of time and memory for templates and patterns that others write, and that Python runs in this process."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

SECONDS = 10.0
"""Greatest duration of one rendering. The templates of public models take milliseconds."""
CHARACTERS = 1 << 26
"""Greatest length of a rendered text."""
MEMORY = 1 << 30
"""Bytes of address space that a template may use in addition to that of the process."""
_AGAIN = 1.0
"""Seconds until the timer ends the work again, if a handler of all exceptions has continued it."""
_PAGES = Path("/proc/self/statm")
"""Its first number is the address space of the process in pages."""
_T = TypeVar("_T")
_READ_SECONDS = 0.1
"""Interval between two reads of the size of the process: many texts are rendered in it."""


@dataclass
class _State:
    """State of the limits of this process.

    Attributes:
        active: whether a limit is set.
        used: address space of the process without the work, in bytes, at ``read`` (seconds of the monotonic clock).
    """

    active: bool = False
    used: int = 0
    read: float = -_READ_SECONDS


_state = _State()


class LimitExceeded(Exception):
    """The work takes longer, or uses more memory, than it may. The message completes "the template"."""


class _Expired(BaseException):
    """The time is over. It is not an ``Exception``, so that neither templates nor libraries continue after it."""


def bounded(seconds: float, work: Callable[[], _T]) -> _T:
    """Return the result of ``work``, which may take ``seconds`` and :data:`MEMORY`; an inner use has the limits of the outer one.

    The timer is a signal, which Python handles between two instructions and inside of a pattern's search. It works in the main thread only,
    which does the work of every stage program. Memory is limited for the whole process while the work runs.

    Raises:
        LimitExceeded: a limit was exceeded.
    """
    if _state.active or threading.current_thread() is not threading.main_thread():
        return work()
    _state.active = True
    limits, timer = resource.getrlimit(resource.RLIMIT_AS), signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, _expire)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
            _limit_memory(limits)
            return work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, limits)
    except _Expired:
        raise LimitExceeded(f"takes longer than {seconds:g} s") from None
    except MemoryError:
        raise LimitExceeded(f"uses more than {MEMORY >> 30} GiB of memory") from None
    finally:  # again: the time may have been over inside the first one
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)
        _state.active = False


def bounded_text(work: Callable[[], str]) -> str:
    """Return a rendered text.

    Raises:
        LimitExceeded: it takes longer than :data:`SECONDS`, uses too much memory, or has more than :data:`CHARACTERS`.
    """
    text = bounded(SECONDS, work)
    if len(text) > CHARACTERS:
        raise LimitExceeded(f"renders more than {CHARACTERS:,} characters")
    return text


def _expire(_signal: int, _frame: FrameType | None) -> None:
    raise _Expired


def _limit_memory(limits: tuple[int, int]) -> None:
    now = time.monotonic()
    if now - _state.read > _READ_SECONDS:
        try:
            _state.used = int(_PAGES.read_bytes().split()[0]) * resource.getpagesize()
        except OSError:  # not Linux: there is no limit of memory
            return
        _state.read = now
    most = min(limit for limit in (_state.used + MEMORY, *limits) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
