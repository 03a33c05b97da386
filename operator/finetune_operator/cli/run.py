"""``finetune run``: one file to its end, on this machine or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.local.judge import generated_name
from finetune_operator.loop.cluster import Cluster, Object

from . import exitcodes
from .config_maps import config_maps
from .documents import DocumentProblem, read_documents
from .objects import put
from .place import Options, Place, Where, find_place
from .refusal import Refused, guarded
from .validate import base_of


def run_file(file: Path, config_files: Sequence[str], where: Where, options: Options) -> int:
    """Run the FineTuneRun of ``file`` to its end and return the exit code. ``config_files`` are ConfigMaps, ``NAME=PATH``."""
    return guarded(lambda: _run(file, config_files, find_place(where), options))


def _run(file: Path, config_files: Sequence[str], place: Place, options: Options) -> int:
    wanted, others = _read(file, place)
    namespace = {"namespace": wanted["metadata"]["namespace"]}
    others += [{**one, "metadata": {**one["metadata"], **namespace}} for one in config_maps(config_files)]

    async def begin(cluster: Cluster) -> Object:
        for other in others:
            await put(place, cluster, other)
        await place.require(cluster, wanted)
        return await put(place, cluster, wanted)

    return place.start(begin, options, follow=True)


def _read(file: Path, place: Place) -> tuple[Object, list[Object]]:
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
    base = base_of(file)
    problems = place.judge(runs[0], base)
    if problems:
        raise Refused(problems)
    return place.placed(_named(runs[0].content), base), [place.placed(document.content, base) for document in others]


def _named(manifest: Object) -> Object:
    """The manifest with a name: with ``generateName`` it is a new one each time, as from ``kubectl create``."""
    metadata = manifest["metadata"]
    if metadata.get("name"):
        return manifest
    name = generated_name(metadata["generateName"])
    print(f"{name}: named by metadata.generateName", file=sys.stderr)
    return {**manifest, "metadata": {**metadata, "name": name}}
