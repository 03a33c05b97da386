"""Driving runs of this machine from a command: begin, show what happens, stop cleanly, say how it ended."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from finetune_operator.core.run import Run
from finetune_operator.local.home import Home
from finetune_operator.local.platform import local_platform
from finetune_operator.local.secrets import LocalSecrets

from .backend import MutateFn, RunOptions
from .display import display
from .follow import conclude, follow, held


def drive(home: Home, begin: MutateFn, secrets: LocalSecrets, options: RunOptions) -> int:
    """Do what ``begin`` does and follow the run that it answers with, to its end. Returns the exit code.

    Raises:
        CommandError: ``begin`` was refused.
        HomeInUse, HomeUnusable: as they say.
    """
    return asyncio.run(_drive(home, begin, secrets, options))


async def _drive(home: Home, begin: MutateFn, secrets: LocalSecrets, options: RunOptions) -> int:
    async with local_platform(home, secrets) as platform:
        stop = _stop_event(platform.kubelet.kill)
        document = await begin(platform.store)
        with display(plain=options.plain, quiet=options.output is not None) as screen:
            document = await follow(platform.store, document, screen, stop)
    code, run = conclude(document, options), Run.parse(document)
    if not run.ended and held(document):
        print(f"{run.name}: suspended; finetune resume {run.name} goes on with it.", file=sys.stderr)
    elif not run.ended and stop.is_set():
        print(f"{run.name}: stopped; the same command goes on where it stopped.", file=sys.stderr)
    return code


def _stop_event(kill: Callable[[], None]) -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; the second one does not wait for the stages any more."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            kill()
            return
        stop.set()
        print("stopping: waiting for the stages to end; Ctrl-C again kills them", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop
