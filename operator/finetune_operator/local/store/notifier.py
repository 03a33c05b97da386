"""Who is told that something changed: watchers of this process at once, and those of others' changes soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from finetune_operator.api.kinds import Kind

POLL_SECONDS = 0.2
"""How often the file is asked whether another process wrote into it, while somebody watches."""


class Notifier:
    """The watchers that wait, by kind.

    Args:
        stamp: a number that changes when another process wrote into the file.
    """

    def __init__(self, stamp: Callable[[], int]) -> None:
        self._stamp = stamp
        self._waiting: dict[Kind, set[asyncio.Event]] = {}
        self._seen = 0
        self._poll: asyncio.TimerHandle | None = None

    @contextmanager
    def waiting_for(self, kind: Kind) -> Iterator[asyncio.Event]:
        """An event that is set when an object of ``kind`` may have changed. Whoever waits clears it before looking."""
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
        """Wake those that wait for one of ``kinds``."""
        for kind in kinds:
            for event in self._waiting.get(kind, ()):
                event.set()

    def stop(self) -> None:
        """Ask no more."""
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
