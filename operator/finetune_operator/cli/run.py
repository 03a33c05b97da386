"""``finetune run``: run the FineTuneRun of a file until it ends, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.validation import generated_name

from . import exit_status
from .backend import Backend
from .backend_selection import find_backend
from .config_maps import config_maps, referenced_config_maps, reject_duplicates, reject_replacement, reject_reserved
from .documents import Document, DocumentProblem, read_documents
from .echo import echo
from .errors import CommandError, handle_errors
from .follow import has_ended
from .objects import apply_object
from .options import RunOptions, Target
from .rerun_command import command_to_repeat
from .validate import base_of


def run_file(file: Path, config_files: Sequence[str], target: Target, options: RunOptions) -> int:
    """Run the FineTuneRun of ``file`` until it ends and return the exit code. ``config_files`` are ConfigMaps, ``NAME=PATH``."""
    return handle_errors(lambda: _run(file, config_files, find_backend(target), options))


def _run(file: Path, config_files: Sequence[str], backend: Backend, options: RunOptions) -> int:
    manifest, others = _read(file, backend)
    namespace = {"namespace": manifest["metadata"]["namespace"]}
    others += [{**one, "metadata": {**one["metadata"], **namespace}} for one in config_maps(config_files)]
    reject_duplicates(others, str(file))

    async def begin(cluster: Cluster) -> Object:
        if not options.allow_code:
            await backend.check_code(cluster, manifest["spec"], others)
        await reject_replacement(cluster, others, manifest["metadata"]["name"])
        for other in others:
            await apply_object(backend, cluster, other)
        await backend.check_prerequisites(cluster, manifest)
        document = await apply_object(backend, cluster, manifest, options.repeated)
        _print_if_ended(Run.parse(document), f"{backend.flags}{options.repeated}")
        return document

    return backend.start(begin, options, follow=True)


def _print_if_ended(run: Run, options: str) -> None:
    """Print how to run a failed run again: an unchanged file only shows its outcome."""
    command = command_to_repeat(run, options) if has_ended(run) and run.status.get("failure") else None
    if command:
        echo(f"{run.name}: the run has failed before; {command}", err=True)


def _read(file: Path, backend: Backend) -> tuple[Object, list[Object]]:
    """Return the run and the ConfigMaps of a file.

    Raises:
        CommandError: the file cannot be read, its content is not valid, or it has a ConfigMap that the run does not reference.
    """
    try:
        documents = read_documents(file)
    except DocumentProblem as problem:
        missing = str(file) != "-" and not file.exists()
        raise CommandError([str(problem)], exit_status.NO_INPUT if missing else exit_status.INVALID) from None
    runs = [document for document in documents if document.kind == KIND]
    others = [document for document in documents if document.kind != KIND]
    if len(runs) != 1:
        raise CommandError(
            [f"{documents[0].source}: contains {len(runs)} objects of kind FineTuneRun; give a file with exactly one."]
        )
    for document in others:
        if document.kind != CONFIGMAP.name:
            raise CommandError(
                [
                    f"{document.source}: {document.kind} {document.name} is not allowed in the file of a run; only ConfigMaps are, so remove it."
                ]
            )
        if not document.name:
            raise CommandError([f"{document.source}: a ConfigMap has no metadata.name; add it."])
        reject_reserved(document.name, document.source)
    base = base_of(file)
    problems = backend.validate(runs[0], base)
    if problems:
        raise CommandError(problems)
    _reject_unused(runs[0].content["spec"], others)
    return backend.prepare(_named(runs[0].content), base), [backend.prepare(document.content, base) for document in others]


def _reject_unused(spec: Object, others: Sequence[Document]) -> None:
    """Raise an error for a ConfigMap that the run does not reference: it would replace one of another run or application.

    Raises:
        CommandError: such a ConfigMap exists.
    """
    used = set(referenced_config_maps(spec))
    unused = next((document for document in others if document.name not in used), None)
    if unused is not None:
        advice = "remove it, or reference it, for example in spec.evaluation.taskFiles."
        raise CommandError([f"{unused.source}: the run does not reference ConfigMap {unused.name}; {advice}"])


def _named(manifest: Object) -> Object:
    """Return the manifest with a name: ``generateName`` gives a new one each time, as ``kubectl create`` does."""
    metadata = manifest["metadata"]
    if metadata.get("name"):
        return manifest
    name = generated_name(metadata["generateName"])
    echo(f"{name}: name generated from metadata.generateName", err=True)
    return {**manifest, "metadata": {**metadata, "name": name}}
