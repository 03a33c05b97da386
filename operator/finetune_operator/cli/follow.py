"""Follows a run until it ends, and reports the outcome."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from finetune_contract.reasons import Cause
from finetune_operator.api import reasons
from finetune_operator.api.kinds import FINETUNERUN, Kind
from finetune_operator.core import stages
from finetune_operator.core.ended_run import pending_rerun, rejected_rerun
from finetune_operator.core.run import Run, all_stopped
from finetune_operator.loop.cluster import Cluster, Object, WatchEvent
from finetune_operator.loop.errors import ApiError, NotFound, Transient
from finetune_operator.loop.watch import list_watch

from . import exit_status
from .backend import Backend, MutateFn
from .display import Display, display
from .echo import echo
from .errors import CommandError
from .options import RunOptions
from .output import print_object
from .report import print_outcome
from .terminal import console

_POLL_SECONDS = 20.0
"""Seconds between reads of the run: a watch that reconnects may miss its deletion."""


def watch_runs(cluster: Cluster, namespace: str | None) -> AsyncGenerator[WatchEvent, None]:
    """Yield the runs of a namespace, then every change to them. Transient errors are waited out; any other ends the watch."""
    return list_watch(cluster, FINETUNERUN, namespace, on_error=_raise_permanent)


def _raise_permanent(_kind: Kind, error: ApiError) -> None:
    if not isinstance(error, Transient):
        raise error


async def follow(
    cluster: Cluster, document: Object, screen: Display, stop: asyncio.Event, until: Callable[[Run], bool] = lambda _run: False
) -> Object:
    """Display a run until it has ended or is suspended, ``stop`` is set, or ``until`` is true. Returns its last state.

    Raises:
        CommandError: the run was deleted.
    """
    stopped = asyncio.create_task(stop.wait())
    try:
        async with aclosing(watch_runs(cluster, document["metadata"]["namespace"])) as changes:
            next_event = asyncio.ensure_future(anext(changes))
            try:
                while True:
                    show = screen.skip if pending_rerun(Run.parse(document)) else screen.show
                    show(Run.parse(document))  # until a rerun starts, the status is that of the previous round
                    run = Run.parse(document)
                    if stopped.done() or has_ended(run) or is_suspended(document) or until(run):
                        return document
                    await asyncio.wait((next_event, stopped), timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if next_event.done():
                        document = _updated(document, next_event.result())
                        next_event = asyncio.ensure_future(anext(changes))
                    elif not stopped.done():
                        document = await _poll(cluster, document)
            finally:
                next_event.cancel()
                await asyncio.gather(next_event, return_exceptions=True)
    finally:
        stopped.cancel()


async def follow_change(backend: Backend, change: MutateFn, options: RunOptions) -> int:
    """Change a run that another process drives, follow it, and return the exit code. Ctrl-C stops only the display.

    Raises:
        CommandError: the change was rejected.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    async with backend.connect() as cluster:
        document = await change(cluster)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        with display(plain=options.plain, quiet=options.output is not None) as screen:
            document = await follow(cluster, document, screen, stop)
    shown = f"finetune get {document['metadata']['name']}{backend.flags}"
    return report_outcome(document, options, backend.flags, f"continues in {backend.description}; show it with: {shown}")


def _updated(document: Object, change: WatchEvent) -> Object:
    if change.object["metadata"]["uid"] != document["metadata"]["uid"]:
        return document
    if change.type == "DELETED":
        raise _deleted(document)
    return change.object


async def _poll(cluster: Cluster, document: Object) -> Object:
    metadata = document["metadata"]
    try:
        found = await cluster.get(FINETUNERUN, metadata["namespace"], metadata["name"])
    except NotFound:
        raise _deleted(document) from None
    except Transient:
        return document
    if found["metadata"]["uid"] != metadata["uid"]:
        raise _deleted(document)
    return found


def _deleted(document: Object) -> CommandError:
    return CommandError([f"{document['metadata']['name']}: the run was deleted."], exit_status.NO_INPUT)


def has_ended(run: Run) -> bool:
    """Return whether the run has ended and its status is of the present generation."""
    return run.ended and run.status.get("observedGeneration") == run.generation


def is_suspended(document: Object) -> bool:
    """Return whether the run is suspended and all its stages have stopped."""
    run = Run.parse(document)
    if not run.spec.get("suspend") or run.status.get("observedGeneration") != run.generation:
        return False
    return all_stopped(run.stages.values())


def report_outcome(document: Object, options: RunOptions, flags: str, interrupted: str | None) -> int:
    """Print the outcome of a run and return the exit code for its state.

    Args:
        document: the run.
        options: the options of the command.
        flags: the options that select its backend in suggested commands.
        interrupted: what the command reports about a run that is neither ended nor suspended.
    """
    run = Run.parse(document)
    rejected = rejected_rerun(run)
    if rejected is not None:
        echo(f"{run.name}: {rejected['reason']}: {rejected['message']}", err=True)
    if options.output is not None:
        print_object(document, options.output)
    elif run.ended and rejected is None:
        print_outcome(console(), run, flags=flags, repeated=options.repeated)
    if run.ended:
        return exit_code(run)
    suspended = is_suspended(document)
    remark = f"suspended; continue it with: finetune resume {run.name}{flags}" if suspended else interrupted
    if remark is not None:
        echo(f"{run.name}: {remark}", err=True)
    return exit_status.OK if options.suspends and suspended else exit_status.INTERRUPTED


_CODES = {Cause.USER: exit_status.INVALID, Cause.OUT_OF_MEMORY: exit_status.INVALID, Cause.TRANSIENT: exit_status.TRY_AGAIN}


def exit_code(run: Run) -> int:
    """Return the exit code for the outcome of a run, or for a rejected rerun."""
    if rejected_rerun(run) is not None:
        return exit_status.INVALID
    failure = run.status.get("failure")
    if not failure:
        return exit_status.REJECTED if stages.GRAPH.model_rejection(run.stages) else exit_status.OK
    reason = reasons.REASONS.get(failure["reason"])
    return _CODES.get(reason.cause, exit_status.FAILED) if reason else exit_status.FAILED
