"""``finetune run``: one file to its end, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.resolve import is_local_path
from finetune_operator.local.judge import Judge
from finetune_operator.local.platform import NAMESPACE, Platform
from finetune_operator.loop.cluster import Object

from . import exitcodes
from .config_maps import config_maps
from .documents import Document, DocumentProblem, read_documents
from .drive import Options, Refused, drive, guarded, put, put_run
from .validate import judge_document


def run_file(file: Path, config_files: Sequence[str], options: Options) -> int:
    """Run the FineTuneRun of ``file`` to its end and return the exit code. ``config_files`` are ConfigMaps, ``NAME=PATH``."""
    return guarded(lambda: _run(file, config_files, options))


def _run(file: Path, config_files: Sequence[str], options: Options) -> int:
    wanted, others = _read(file)
    others += config_maps(config_files)

    async def begin(platform: Platform) -> Object:
        for other in others:
            await put(platform.store, other)
        return await put_run(platform.store, wanted)

    return drive(begin, options)


def _read(file: Path) -> tuple[Object, list[Object]]:
    """The run of a file, and the ConfigMaps that it brings along.

    Raises:
        Refused: it cannot be read, or what it holds is not what a run may have.
    """
    try:
        documents = read_documents(file)
    except DocumentProblem as problem:
        missing = str(file) != "-" and not file.exists()
        raise Refused([str(problem)], exitcodes.NO_INPUT if missing else exitcodes.INVALID) from None
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
    return absolute(_placed(runs[0]), base), [_placed(document) for document in others]


def absolute(wanted: Object, base: Path) -> Object:
    """The run with its local paths absolute: relative ones count from ``base``."""
    spec = dict(wanted["spec"])
    for section, field in (("dataset", "uri"), ("dataset", "evalUri"), ("model", "uri")):
        values = spec.get(section) or {}
        uri = values.get(field)
        if isinstance(uri, str) and is_local_path(uri):
            path = Path(uri.removeprefix("file://")).expanduser()
            spec[section] = {**values, field: str((base / path).resolve())}
    return {**wanted, "spec": spec}


def _placed(document: Document) -> Object:
    content = document.content
    return {**content, "metadata": {**content["metadata"], "namespace": NAMESPACE}}
