"""``finetune run``: one file to its end, on this machine or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.validation import generated_name

from . import exitcodes
from .backend import Backend, RunOptions, Target, find_backend
from .config_maps import config_maps
from .documents import DocumentProblem, read_documents
from .errors import CommandError, guarded
from .objects import put
from .validate import base_of


def run_file(file: Path, config_files: Sequence[str], where: Target, options: RunOptions) -> int:
    """Run the FineTuneRun of ``file`` to its end and return the exit code. ``config_files`` are ConfigMaps, ``NAME=PATH``."""
    return guarded(lambda: _run(file, config_files, find_backend(where), options))


def _run(file: Path, config_files: Sequence[str], backend: Backend, options: RunOptions) -> int:
    wanted, others = _read(file, backend)
    namespace = {"namespace": wanted["metadata"]["namespace"]}
    others += [{**one, "metadata": {**one["metadata"], **namespace}} for one in config_maps(config_files)]

    async def begin(cluster: Cluster) -> Object:
        for other in others:
            await put(backend, cluster, other)
        await backend.require(cluster, wanted)
        return await put(backend, cluster, wanted)

    return backend.start(begin, options, follow=True)


def _read(file: Path, backend: Backend) -> tuple[Object, list[Object]]:
    """The run of a file, and the ConfigMaps that it brings along.

    Raises:
        CommandError: it cannot be read, or what it holds is not what a run may have.
    """
    try:
        documents = read_documents(file)
    except DocumentProblem as problem:
        missing = str(file) != "-" and not file.exists()
        raise CommandError([str(problem)], exitcodes.NO_INPUT if missing else exitcodes.INVALID) from None
    runs = [document for document in documents if document.kind == KIND]
    others = [document for document in documents if document.kind != KIND]
    if len(runs) != 1:
        raise CommandError([f"{documents[0].source}: holds {len(runs)} FineTuneRuns; finetune run takes a file with one."])
    for document in others:
        if document.kind != CONFIGMAP.name:
            raise CommandError(
                [f"{document.source}: {document.kind} {document.name} has no place here: only ConfigMaps may stand beside a run."]
            )
    base = base_of(file)
    problems = backend.validate(runs[0], base)
    if problems:
        raise CommandError(problems)
    return backend.placed(_named(runs[0].content), base), [backend.placed(document.content, base) for document in others]


def _named(manifest: Object) -> Object:
    """The manifest with a name: with ``generateName`` it is a new one each time, as from ``kubectl create``."""
    metadata = manifest["metadata"]
    if metadata.get("name"):
        return manifest
    name = generated_name(metadata["generateName"])
    print(f"{name}: named by metadata.generateName", file=sys.stderr)
    return {**manifest, "metadata": {**metadata, "name": name}}
