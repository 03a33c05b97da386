"""Notifies watchers of changes: of this process immediately, of other processes by polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from finetune_operator.api.kinds import Kind

POLL_SECONDS = 0.2
"""Interval of the check for writes of other processes while there are watchers, in seconds."""


class Notifier:
    """The waiting watchers by kind.

    Args:
        stamp: returns a number that changes when another process writes to the file.
    """

    def __init__(self, stamp: Callable[[], int]) -> None:
        self._stamp = stamp
        self._waiting: dict[Kind, set[asyncio.Event]] = {}
        self._seen = 0
        self._poll: asyncio.TimerHandle | None = None

    @contextmanager
    def waiting_for(self, kind: Kind) -> Iterator[asyncio.Event]:
        """Yield an event that is set when an object of ``kind`` may have changed. The watcher clears it before it reads."""
        event = asyncio.Event()
        self._waiting.setdefault(kind, set()).add(event)
        if self._poll is None:
            self._seen = self._stamp()
            self._schedule()
        try:
            yield event
        finally:
            self._waiting[kind].discard(event)
            if not any(self._waiting.values()):
                self.stop()

    def wake(self, kinds: Iterable[Kind]) -> None:
        """Notify the watchers of ``kinds``."""
        for kind in kinds:
            for event in self._waiting.get(kind, ()):
                event.set()

    def stop(self) -> None:
        """Stop polling."""
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None

    def _schedule(self) -> None:
        self._poll = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll_file)

    def _poll_file(self) -> None:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self.wake(list(self._waiting))
        self._schedule()
