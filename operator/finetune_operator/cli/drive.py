"""Driving runs of this machine from a command: begin, show what happens, stop cleanly, say how it ended."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.reasons import Cause
from finetune_operator.api import reasons
from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, Kind
from finetune_operator.core.paths import lookup
from finetune_operator.core.resolve import STEERING
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home, HomeInUse, HomeUnusable
from finetune_operator.local.platform import NAMESPACE, Platform, local_platform
from finetune_operator.local.secrets import LocalSecrets, SecretFileProblem
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import ApiError, Invalid, NotFound
from finetune_operator.loop.watch import changes

from . import exitcodes
from .display import Display, display
from .output import print_object
from .report import print_end
from .terminal import console


class Refused(Exception):
    """The command cannot be carried out: sentences for the user, and the exit code."""

    def __init__(self, lines: list[str], code: int = exitcodes.INVALID) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.code = code


@dataclass(frozen=True)
class Options:
    """What the commands that drive a run have in common: where, with which secrets, and how they speak."""

    home: Path | None = None
    secrets: tuple[str, ...] = ()
    plain: bool = False
    output: str | None = None

    def secret_source(self) -> LocalSecrets:
        """The Secrets of ``--secret NAME=FILE``, and the environment's.

        Raises:
            Refused: one of them is not of that form.
            SecretFileProblem: a file cannot be read.
        """
        files = {}
        for pair in self.secrets:
            name, separator, path = pair.partition("=")
            if not separator or not name or not path:
                raise Refused([f"--secret {pair}: expected NAME=FILE."], exitcodes.USAGE)
            files[name] = Path(path).expanduser()
        return LocalSecrets(files)


def guarded(command: Callable[[], int]) -> int:
    """The exit code of a command; what a user can mend becomes one sentence."""
    try:
        return command()
    except Refused as refusal:
        lines, code = refusal.lines, refusal.code
    except (SecretFileProblem, HomeUnusable) as problem:
        lines, code = [str(problem)], exitcodes.INVALID
    except HomeInUse as problem:
        message = f"{problem.home}: another finetune run (process {problem.holder}) is at work there; wait for it, or use --home."
        lines, code = [message], exitcodes.TRY_AGAIN
    for line in lines:
        print(line, file=sys.stderr)
    return code


def drive(begin: Callable[[Platform], Awaitable[Object]], options: Options) -> int:
    """Do what ``begin`` does and follow the run that it answers with, to its end. Returns the exit code.

    Raises:
        Refused: ``begin`` was refused.
        HomeInUse, HomeUnusable, SecretFileProblem: as they say.
    """
    return asyncio.run(_drive(begin, options, options.secret_source()))


async def _drive(begin: Callable[[Platform], Awaitable[Object]], options: Options, secrets: LocalSecrets) -> int:
    async with local_platform(Home.find(options.home), secrets) as platform:
        stop = _stop_event(platform.kubelet.kill)
        document = await begin(platform)
        with display(plain=options.plain, quiet=options.output is not None) as screen:
            document = await follow(platform, document, screen, stop)
    return _conclude(document, stopped=stop.is_set(), output=options.output)


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


async def put_run(cluster: Cluster, manifest: Object) -> Object:
    """The same for a run, whose ConfigMaps must be there: on one machine nobody else will bring them.

    Raises:
        Refused: one of them is not, or the run itself is refused.
    """
    name = lookup(manifest, "spec.evaluation.taskFiles.name")
    if name:
        try:
            await cluster.get(CONFIGMAP, NAMESPACE, name)
        except NotFound:
            sentence = f"spec.evaluation.taskFiles: there is no ConfigMap {name} here; bring it with --configmap {name}=FOLDER."
            raise Refused([sentence]) from None
    return await put(cluster, manifest)


async def put(cluster: Cluster, manifest: Object) -> Object:
    """Make an object, or give the one that exists this content, as ``kubectl apply`` would.

    The words that steer a run on its way (suspend, rerun, approval) stay as they are where the content is silent.

    Raises:
        Refused: the content is refused: a frozen section was edited, for example.
    """
    kind = FINETUNERUN if manifest["kind"] == KIND else CONFIGMAP
    metadata = manifest["metadata"]
    try:
        present = await cluster.get(kind, metadata["namespace"], metadata["name"])
    except NotFound:
        return await make(cluster, manifest)
    patch: dict[str, Any] = {}
    kept = {word: (present.get("spec") or {})[word] for word in STEERING if word in (present.get("spec") or {})}
    if kept:
        manifest = {**manifest, "spec": {**kept, **manifest["spec"]}}
    for part in ("spec", "data", "binaryData"):
        change = difference(present.get(part) or {}, manifest.get(part) or {})
        if change:
            patch[part] = change
    labels = metadata.get("labels") or {}
    if any((present["metadata"].get("labels") or {}).get(key) != value for key, value in labels.items()):
        patch["metadata"] = {"labels": labels}
    return await edit(cluster, metadata["name"], patch, kind) if patch else present


async def make(cluster: Cluster, manifest: Object) -> Object:
    """Make an object that does not exist yet.

    Raises:
        Refused: its content is refused.
    """
    try:
        return await cluster.create(manifest)
    except Invalid as error:
        raise Refused(_causes(error)) from None


async def edit(cluster: Cluster, name: str, patch: Object, kind: Kind = FINETUNERUN) -> Object:
    """Merge-patch an object.

    Raises:
        Refused: the change is refused: a frozen section was edited, for example.
    """
    try:
        return await cluster.patch(kind, NAMESPACE, name, patch)
    except Invalid as error:
        raise Refused(_explain(error, name)) from None


def _explain(error: ApiError, name: str) -> list[str]:
    return [*_causes(error), f"Nothing was changed. To start anew under this name: finetune delete {name}"]


def _causes(error: ApiError) -> list[str]:
    return [f"{field}: {message}" if field else message for field, message in error.causes] or [error.message]


async def follow(platform: Platform, document: Object, screen: Display, stop: asyncio.Event) -> Object:
    """Show a run until it has ended or ``stop`` is set; the run as it is then."""
    name = document["metadata"]["name"]
    stopped = asyncio.create_task(stop.wait())
    watch = changes(platform.store, FINETUNERUN, NAMESPACE)
    try:
        while True:
            screen.show(Run.parse(document))
            if _settled(document) or _held(document):
                return document
            news = asyncio.ensure_future(anext(watch))
            await asyncio.wait((news, stopped), return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                news.cancel()
                await asyncio.gather(news, return_exceptions=True)
                return document
            change = news.result()
            if change.object["metadata"]["name"] != name:
                continue
            if change.type == "DELETED":
                raise Refused([f"{name}: was deleted."], exitcodes.NO_INPUT)
            document = change.object
    finally:
        stopped.cancel()
        await watch.aclose()


def _settled(document: Object) -> bool:
    """Whether the run has ended, and for the wish that the file states now."""
    run = Run.parse(document)
    return run.ended and run.status.get("observedGeneration") == run.generation


def _held(document: Object) -> bool:
    """Whether the run is suspended, and all that ran for it has stopped."""
    run = Run.parse(document)
    if not run.spec.get("suspend") or run.status.get("observedGeneration") != run.generation:
        return False
    return all(record.reason == reasons.SUSPENDED for record in run.stages.values() if record.state == "Running")


def _conclude(document: Object, *, stopped: bool, output: str | None) -> int:
    run = Run.parse(document)
    if output is not None:
        print_object(document, output)
    elif run.ended:
        print_end(console(), run)
    if not run.ended:
        if _held(document):
            print(f"{run.name}: suspended; finetune resume {run.name} goes on with it.", file=sys.stderr)
        elif stopped:
            print(f"{run.name}: stopped; the same command goes on where it stopped.", file=sys.stderr)
        return exitcodes.INTERRUPTED
    return exit_code(run)


_CODES = {Cause.USER: exitcodes.INVALID, Cause.OUT_OF_MEMORY: exitcodes.INVALID, Cause.TRANSIENT: exitcodes.TRY_AGAIN}


def exit_code(run: Run) -> int:
    """The exit code that a run's end stands for."""
    failure = run.status.get("failure")
    if not failure:
        return exitcodes.REJECTED if (run.status.get("gate") or {}).get("passed") is False else exitcodes.OK
    reason = reasons.REASONS.get(failure["reason"])
    return _CODES.get(reason.cause, exitcodes.FAILED) if reason else exitcodes.FAILED
