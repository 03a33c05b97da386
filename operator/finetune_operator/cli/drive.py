"""Drives the runs of this machine from a command: start, display, stop cleanly, report the outcome."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from finetune_operator.api.reasons import SECRET_MISSING
from finetune_operator.core.condition import find_condition
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home
from finetune_operator.local.platform import local_platform
from finetune_operator.local.secrets import LocalSecrets

from . import exit_status
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
    async with local_platform(home, secrets, allow_code=options.allow_code) as platform:
        stop = _stop_event(platform.kubelet.kill)
        document = await change(platform.store)
        with display(plain=options.plain, quiet=options.output is not None) as screen:
            document = await follow(platform.store, document, screen, stop, lambda run: _missing_secret(run, secrets) is not None)
    for message in secrets.unread():
        echo(message, err=True)
    missing = None if stop.is_set() else _missing_secret(Run.parse(document), secrets)
    given = f"{flags}{options.repeated}"
    if missing:
        name, key = missing
        why, given = f"stopped, because Secret {name} has no key {key}", f"{given} --secret {name}=FILE"
    else:
        why = "stopped"
    continued = f"{why}; continue it with: finetune resume {document['metadata']['name']}{given}"
    code = report_outcome(document, options, flags, continued if stop.is_set() or missing else None)
    return exit_status.INVALID if missing else code


def _missing_secret(run: Run, secrets: LocalSecrets) -> tuple[str, str] | None:
    """Return name and key of the Secret that the run waits for: the running command gets no other Secrets.

    The status can still have the blocker of an earlier command: only what pods have asked for since counts.
    """
    stalled = find_condition(run.status, "Stalled")
    if run.ended or stalled is None or stalled["status"] != "True" or stalled["reason"] != SECRET_MISSING.name:
        return None
    return next(
        (pair for pair in sorted(secrets.missing) if f'secret "{pair[0]}" has no key {pair[1]};' in stalled["message"]), None
    )


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
