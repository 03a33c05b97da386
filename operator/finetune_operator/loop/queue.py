"""A queue of keys: each is queued at most once, has one worker at a time, and waits longer after each failure."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
"""Seconds of the first and the longest pause after failures. A random jitter of up to 50 % is added."""


class WorkQueue(Generic[K]):
    """Queue of a level-triggered loop: it holds keys of objects, not events, and behaves as client-go's workqueue.

    A key that is added while a worker has it is queued again when that worker is done. So no change is missed, and no two workers
    have the same key.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._dirty: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def busy(self, key: K) -> bool:
        """Return whether a worker has ``key``."""
        return key in self._working

    def add(self, key: K) -> None:
        """Queue ``key``."""
        if key in self._working:
            self._dirty.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue ``key`` in ``seconds``, unless it is due earlier."""
        due = self._clock() + seconds
        if seconds <= 0:
            self.add(key)
        elif due < self._due.get(key, float("inf")):
            self._due[key] = due
            item = (due, next(self._order), key)
            heapq.heappush(self._delayed, item)
            if self._delayed[0] is item:
                self._set_timer()

    async def get(self) -> K:
        """Wait for the next key and return it. The caller must call :meth:`done`. An earlier :meth:`add_after` is canceled."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        self._due.pop(key, None)
        return key

    def clear_dirty(self, key: K) -> None:
        """Undo the calls of :meth:`add` since :meth:`get`: the worker has not read anything yet, so it sees those changes."""
        self._dirty.discard(key)

    def add_rate_limited(self, key: K) -> float:
        """Queue ``key`` after a pause, and return it in seconds. It grows with each failure until :meth:`done` reports a success."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count, 16)) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
        self.add_after(key, pause)
        return pause

    def done(self, key: K, *, failed: bool = False) -> float | None:
        """End the work on ``key``. After a failure, the key is queued again after a pause, which is returned in seconds."""
        self._working.discard(key)
        pause = None
        if failed:
            pause = self.add_rate_limited(key)
        else:
            self._failures.pop(key, None)
        if key in self._dirty:
            self._dirty.discard(key)
            if not failed:
                self.add(key)
        return pause

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delayed:
            pause = max(0.0, self._delayed[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(pause, self._release)

    def _release(self) -> None:
        self._timer = None
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._set_timer()
