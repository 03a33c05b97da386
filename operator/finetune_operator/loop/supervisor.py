"""Tasks that run for as long as the loop: one that ends with an exception is started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0
"""Pause before the first restart. It doubles up to the longest pause."""
_LONGEST_RESTART_SECONDS = 60.0
"""A task that has run for longer than this starts again with the first pause."""


async def supervise(task: Callable[[], Awaitable[None]], on_error: Callable[[], None]) -> None:
    """Run ``task`` until it returns. After an unexpected exception, call ``on_error`` and start it again after a growing pause."""
    clock = asyncio.get_running_loop().time
    pause = _RESTART_SECONDS
    while True:
        started = clock()
        try:
            return await task()
        except Exception:
            log.exception("a task of the control loop raised an exception and is restarted")
            on_error()
        if clock() - started > _LONGEST_RESTART_SECONDS:
            pause = _RESTART_SECONDS
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_RESTART_SECONDS)


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
