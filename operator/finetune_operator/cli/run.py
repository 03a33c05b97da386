"""``finetune run``: one file to its end, on this machine."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_contract.reasons import Cause
from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN
from finetune_operator.api.reasons import REASONS
from finetune_operator.core.resolve import is_local_path
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home, HomeInUse, HomeUnusable
from finetune_operator.local.judge import Judge
from finetune_operator.local.platform import NAMESPACE, Platform, local_platform
from finetune_operator.local.secrets import LocalSecrets, SecretFileProblem
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import ApiError, Invalid, NotFound
from finetune_operator.loop.watch import changes

from . import exitcodes
from .display import Display, display
from .documents import Document, DocumentProblem, read_documents
from .output import print_object
from .report import print_end
from .terminal import console
from .validate import judge_document


class Refused(Exception):
    """The command cannot be carried out: sentences for the user, and the exit code."""

    def __init__(self, lines: list[str], code: int = exitcodes.INVALID) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.code = code


def run_file(file: Path, home: Path | None, secrets: list[str], *, plain: bool, output: str | None) -> int:
    """Run the FineTuneRun of ``file`` to its end and return the exit code."""
    try:
        wanted, others = _read(file)
        source = LocalSecrets(_secret_files(secrets))
        return asyncio.run(_run(wanted, others, Home.find(home), source, plain=plain, output=output))
    except Refused as refusal:
        lines, code = refusal.lines, refusal.code
    except DocumentProblem as problem:
        lines, code = [str(problem)], exitcodes.INVALID if file.exists() or str(file) == "-" else exitcodes.NO_INPUT
    except (SecretFileProblem, HomeUnusable) as problem:
        lines, code = [str(problem)], exitcodes.INVALID
    except HomeInUse as problem:
        message = f"{problem.home}: another finetune run (process {problem.holder}) is at work there; wait for it, or use --home."
        lines, code = [message], exitcodes.TRY_AGAIN
    for line in lines:
        print(line, file=sys.stderr)
    return code


def _read(file: Path) -> tuple[Object, list[Object]]:
    """The run of a file, and the ConfigMaps that it brings along."""
    documents = read_documents(file)
    runs = [document for document in documents if document.kind == KIND]
    others = [document for document in documents if document.kind != KIND]
    if len(runs) != 1:
        raise Refused([f"{documents[0].source}: holds {len(runs)} FineTuneRuns; finetune run takes a file with one."])
    for document in others:
        if document.kind != CONFIGMAP.name:
            raise Refused(
                [f"{document.source}: {document.kind} {document.name} has no place here: only ConfigMaps may stand beside a run."]
            )
    problems = judge_document(Judge(crd()), runs[0])
    if problems:
        raise Refused(problems)
    base = Path.cwd() if str(file) == "-" else file.absolute().parent
    return _absolute(runs[0], base), [_placed(document.content) for document in others]


def _absolute(document: Document, base: Path) -> Object:
    """The run with its local paths absolute: relative ones count from the file that names them."""
    content = _placed(document.content)
    for section, field in (("dataset", "uri"), ("dataset", "evalUri"), ("model", "uri")):
        values = content["spec"].get(section) or {}
        uri = values.get(field)
        if isinstance(uri, str) and is_local_path(uri):
            path = Path(uri.removeprefix("file://")).expanduser()
            content["spec"] = {**content["spec"], section: {**values, field: str((base / path).resolve())}}
    return content


def _placed(content: Object) -> Object:
    return {**content, "metadata": {**content["metadata"], "namespace": NAMESPACE}}


def _secret_files(pairs: list[str]) -> dict[str, Path]:
    files = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise Refused([f"--secret {pair}: expected NAME=FILE."], exitcodes.USAGE)
        files[name] = Path(path).expanduser()
    return files


async def _run(
    wanted: Object, others: list[Object], home: Home, secrets: LocalSecrets, *, plain: bool, output: str | None
) -> int:
    async with local_platform(home, secrets) as platform:
        stop = _stop_event(platform.kubelet.kill)
        for other in others:
            await put(platform.store, other)
        try:
            document = await put(platform.store, wanted)
        except Invalid as error:
            raise Refused(_explain(error, wanted)) from None
        with display(plain=plain, quiet=output is not None) as screen:
            document = await follow(platform, document, screen, stop)
    return _conclude(document, stopped=stop.is_set(), output=output)


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


async def put(cluster: Cluster, manifest: Object) -> Object:
    """Make an object, or give the one that exists this content, as ``kubectl apply`` would.

    Raises:
        Invalid: the content is refused: a frozen section was edited, for example.
    """
    kind = FINETUNERUN if manifest["kind"] == KIND else CONFIGMAP
    metadata = manifest["metadata"]
    try:
        present = await cluster.get(kind, metadata["namespace"], metadata["name"])
    except NotFound:
        return await cluster.create(manifest)
    patch: dict[str, Any] = {}
    for part in ("spec", "data", "binaryData"):
        change = difference(present.get(part) or {}, manifest.get(part) or {})
        if change:
            patch[part] = change
    labels = metadata.get("labels") or {}
    if any((present["metadata"].get("labels") or {}).get(key) != value for key, value in labels.items()):
        patch["metadata"] = {"labels": labels}
    return await cluster.patch(kind, metadata["namespace"], metadata["name"], patch) if patch else present


def _explain(error: ApiError, wanted: Object) -> list[str]:
    name = wanted["metadata"]["name"]
    causes = [f"{field}: {message}" if field else message for field, message in error.causes] or [error.message]
    return [*causes, f"Nothing was changed. To start anew under this name: finetune delete {name}"]


async def follow(platform: Platform, document: Object, screen: Display, stop: asyncio.Event) -> Object:
    """Show a run until it has ended or ``stop`` is set; the run as it is then."""
    name = document["metadata"]["name"]
    stopped = asyncio.create_task(stop.wait())
    watch = changes(platform.store, FINETUNERUN, NAMESPACE)
    try:
        while True:
            screen.show(Run.parse(document))
            if _settled(document):
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


def _conclude(document: Object, *, stopped: bool, output: str | None) -> int:
    run = Run.parse(document)
    if output is not None:
        print_object(document, output)
    elif run.ended:
        print_end(console(), run)
    if not run.ended:
        if stopped:
            print(f"{run.name}: stopped; the same command goes on where it stopped.", file=sys.stderr)
        return exitcodes.INTERRUPTED
    return exit_code(run)


_CODES = {Cause.USER: exitcodes.INVALID, Cause.OUT_OF_MEMORY: exitcodes.INVALID, Cause.TRANSIENT: exitcodes.TRY_AGAIN}


def exit_code(run: Run) -> int:
    """The exit code that a run's end stands for."""
    failure = run.status.get("failure")
    if not failure:
        return exitcodes.OK
    reason = REASONS.get(failure["reason"])
    return _CODES.get(reason.cause, exitcodes.FAILED) if reason else exitcodes.FAILED
