"""Drives the runs of this machine from a command: start, display, stop cleanly, report the outcome."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from finetune_operator.local.home import Home
from finetune_operator.local.platform import local_platform
from finetune_operator.local.secrets import LocalSecrets

from .backend import MutateFn
from .display import display
from .echo import echo
from .follow import follow, report_outcome
from .options import RunOptions


def drive(home: Home, change: MutateFn, secrets: LocalSecrets, options: RunOptions, flags: str) -> int:
    """Apply ``change``, drive the run that it returns until the run ends, and return the exit code.

    Raises:
        CommandError: ``change`` was rejected.
        HomeInUse: another command drives the runs of the folder.
        HomeUnusable: the folder cannot be used.
    """
    return asyncio.run(_drive(home, change, secrets, options, flags))


async def _drive(home: Home, change: MutateFn, secrets: LocalSecrets, options: RunOptions, flags: str) -> int:
    async with local_platform(home, secrets) as platform:
        stop = _stop_event(platform.kubelet.kill)
        document = await change(platform.store)
        with display(plain=options.plain, quiet=options.output is not None) as screen:
            document = await follow(platform.store, document, screen, stop)
    interrupted = f"stopped; continue it with: finetune resume {document['metadata']['name']}{flags}" if stop.is_set() else None
    return report_outcome(document, options, flags, interrupted)


def _stop_event(kill: Callable[[], None]) -> asyncio.Event:
    """Return an event that the first Ctrl-C or SIGTERM sets. The second one kills the stages."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            kill()
            return
        stop.set()
        echo("stopping: waiting for the stages to stop; press Ctrl-C again to kill them", err=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop
