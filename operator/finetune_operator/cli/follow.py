"""A run followed to its end, and what is said then."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

from finetune_contract.reasons import Cause
from finetune_operator.api import reasons
from finetune_operator.api.kinds import FINETUNERUN, Kind
from finetune_operator.core import stages
from finetune_operator.core.run import Run, all_stopped
from finetune_operator.core.terminal import rejected_rerun
from finetune_operator.loop.cluster import Cluster, Object, WatchEvent
from finetune_operator.loop.errors import ApiError, NotFound, Transient
from finetune_operator.loop.watch import list_watch

from . import exitcodes
from .backend import Backend, MutateFn, RunOptions
from .display import Display, display
from .errors import CommandError
from .output import print_object
from .report import print_end
from .terminal import console

_LOOK_SECONDS = 20.0
"""A watch that lost its connection does not tell of a deletion meanwhile: an own look does."""


def watch_runs(cluster: Cluster, namespace: str | None) -> AsyncGenerator[WatchEvent, None]:
    """Yield the runs of a namespace, then every change to them. Transient errors are waited out; any other ends the watch."""
    return list_watch(cluster, FINETUNERUN, namespace, on_error=_raise_permanent)


def _raise_permanent(_kind: Kind, error: ApiError) -> None:
    if not isinstance(error, Transient):
        raise error


async def follow(cluster: Cluster, document: Object, screen: Display, stop: asyncio.Event) -> Object:
    """Show a run until it has ended, or stands still because it is suspended, or ``stop`` is set; the run as it is then.

    Raises:
        CommandError: it was deleted.
    """
    stopped = asyncio.create_task(stop.wait())
    try:
        async with aclosing(watch_runs(cluster, document["metadata"]["namespace"])) as changes:
            coming = asyncio.ensure_future(anext(changes))
            try:
                while True:
                    screen.show(Run.parse(document))
                    if stopped.done() or _settled(document) or held(document):
                        return document
                    await asyncio.wait((coming, stopped), timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if coming.done():
                        document = _newer(document, coming.result())
                        coming = asyncio.ensure_future(anext(changes))
                    elif not stopped.done():
                        document = await _look(cluster, document)
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
    finally:
        stopped.cancel()


async def follow_change(backend: Backend, change: MutateFn, options: RunOptions) -> int:
    """Change a run, and follow what somebody else makes of it. Ctrl-C ends only the following. The exit code.

    Raises:
        CommandError: the change was refused.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    async with backend.opened() as cluster:
        document = await change(cluster)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        with display(plain=options.plain, quiet=options.output is not None) as screen:
            document = await follow(cluster, document, screen, stop)
    code, run = conclude(document, options, backend.flags), Run.parse(document)
    if not run.ended and held(document):
        print(f"{run.name}: suspended; finetune resume {run.name}{backend.flags} goes on with it.", file=sys.stderr)
    elif not run.ended:
        shows = f"finetune get {run.name}{backend.flags}"
        print(f"{run.name}: goes on in {backend.words}; {shows} shows how far it is.", file=sys.stderr)
    return code


def _newer(document: Object, change: WatchEvent) -> Object:
    if change.object["metadata"]["uid"] != document["metadata"]["uid"]:
        return document
    if change.type == "DELETED":
        raise _deleted(document)
    return change.object


async def _look(cluster: Cluster, document: Object) -> Object:
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
    return CommandError([f"{document['metadata']['name']}: was deleted."], exitcodes.NO_INPUT)


def _settled(document: Object) -> bool:
    """Whether the run has ended, and for the wish that the file states now."""
    run = Run.parse(document)
    return run.ended and run.status.get("observedGeneration") == run.generation


def held(document: Object) -> bool:
    """Whether the run is suspended, and all that ran for it has stopped."""
    run = Run.parse(document)
    if not run.spec.get("suspend") or run.status.get("observedGeneration") != run.generation:
        return False
    return all_stopped(run.stages.values())


def conclude(document: Object, options: RunOptions, flags: str = "") -> int:
    """Print a run that is no longer followed, and return the exit code for the state that it is in."""
    run = Run.parse(document)
    rejected = rejected_rerun(run)
    if rejected is not None:
        print(f"{run.name}: {rejected['reason']}: {rejected['message']}", file=sys.stderr)
    if options.output is not None:
        print_object(document, options.output)
    elif run.ended and rejected is None:
        print_end(console(), run, flags=flags)
    if run.ended:
        return exit_code(run)
    return exitcodes.OK if options.suspends and held(document) else exitcodes.INTERRUPTED


_CODES = {Cause.USER: exitcodes.INVALID, Cause.OUT_OF_MEMORY: exitcodes.INVALID, Cause.TRANSIENT: exitcodes.TRY_AGAIN}


def exit_code(run: Run) -> int:
    """The exit code that a run's end stands for, or that of a rerun that is rejected."""
    if rejected_rerun(run) is not None:
        return exitcodes.INVALID
    failure = run.status.get("failure")
    if not failure:
        return exitcodes.REJECTED if stages.GRAPH.rejection(run.stages) else exitcodes.OK
    reason = reasons.REASONS.get(failure["reason"])
    return _CODES.get(reason.cause, exitcodes.FAILED) if reason else exitcodes.FAILED
