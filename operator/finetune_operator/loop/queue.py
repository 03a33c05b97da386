"""A queue of keys: each waits at most once, is worked on by one worker at a time, and after a failure waits ever longer."""

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
"""Seconds of the first and the longest pause after failures; each is stretched by chance up to half as much again."""


class WorkQueue(Generic[K]):
    """What a level-triggered loop works off: keys of objects to look at, not events.

    A key that is added while it is worked on waits until that is over, so no change is missed and none is worked on twice at
    the same time. client-go's work queue behaves the same way.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def busy(self, key: K) -> bool:
        """Whether somebody works on ``key`` just now."""
        return key in self._working

    def add(self, key: K) -> None:
        """Have ``key`` looked at soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have ``key`` looked at in ``seconds``, or earlier if it was asked for earlier."""
        due = self._clock() + seconds
        if seconds <= 0:
            self.add(key)
        elif due < self._due.get(key, float("inf")):
            self._due[key] = due
            entry = (due, next(self._order), key)
            heapq.heappush(self._delayed, entry)
            if self._delayed[0] is entry:
                self._set_timer()

    async def get(self) -> K:
        """The next key; the caller ends its work with :meth:`done`. What it would have come for later is done now."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        self._due.pop(key, None)
        return key

    def clear_dirty(self, key: K) -> None:
        """Take back what was added while ``key`` is worked on: the work begins to read only now."""
        self._again.discard(key)

    def add_rate_limited(self, key: K) -> float:
        """Have ``key`` looked at after a pause that grows with each failure until :meth:`done` ends one well; the pause in seconds."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count, 16)) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
        self.add_after(key, pause)
        return pause

    def done(self, key: K, *, failed: bool = False) -> float | None:
        """End the work on ``key``; after a failure it comes again by itself, in the seconds that are returned."""
        self._working.discard(key)
        pause = None
        if failed:
            pause = self.add_rate_limited(key)
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
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
