"""Dependencies of scores in addition to the inputs: the model, the held-out rows, lm-eval, and the user's tasks and their data.

The digest of a stage's inputs covers the names of tasks, but the user's task files and their data can change. This module imports no
large library and reads lm-eval's files only if the user has task files, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.documents import EvaluationInputs, Scalar
from finetune_stages.chat.task_rows import own_roots
from finetune_stages.sdk import Context, Seal, StageError, read_seal
from finetune_stages.sdk.gpus import on_gpu
from finetune_stages.sdk.workspace import file_sha256

from .passages import chat_tasks
from .task_data import data_directory, require_own_data
from .task_rules import require_no_code, require_own_definitions

if TYPE_CHECKING:
    from finetune_stages.sources.task_files import Definition, TaskFiles

MEASURING = 2
"""Version of the measurement. A new version invalidates the scores of an older one."""
_LOADERS = ("json", "csv", "text", "parquet", "arrow")
"""Values of ``dataset_path`` for local files."""


def revalidate(context: Context, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether tasks and model are unchanged since ``fingerprint``.

    Raises:
        StageError: A task or the model is missing.
    """
    inputs = context.inputs(EvaluationInputs)
    return fingerprint_of(context, inputs, sealed(model_directory(context, inputs))) == fingerprint


def fingerprint_of(context: Context, inputs: EvaluationInputs, model: Seal) -> dict[str, Scalar] | None:
    """Return digests of everything that scores depend on; ``None`` if a change cannot be detected.

    lm-eval's own benchmarks are treated as fixed. Scores of GPUs and of processors differ slightly and are kept apart.

    Raises:
        StageError: ``EngineMissing``, or a task that cannot be found.
    """
    chats = chat_tasks(context, inputs)
    roots, tasks = own_roots(inputs.task_files), ""
    if set(inputs.tasks) - chats.keys() and any(next(root.rglob("*.yaml"), None) for root in roots):
        tasks = _own_tasks(data_directory(roots), find_definitions(context, inputs))
        if not tasks:
            return None
    return {
        "measuring": MEASURING, "lmEval": _lm_eval(), "gpu": on_gpu(), "model": model.digest,
        "tasks": tasks, **{f"chat/{name}": file.sha256 for name, file in chats.items()},
    }  # fmt: skip


def find_definitions(context: Context, inputs: EvaluationInputs) -> list[Definition]:
    """Return the definitions of lm-eval's tasks in ``inputs`` and of their members.

    Raises:
        StageError: ``TaskNotFound``, ``TaskInvalid``, ``EngineMissing``.
    """
    chats = chat_tasks(context, inputs)
    roots = own_roots(inputs.task_files)
    names = [name for name in inputs.tasks if name not in chats]
    if not names:
        return []
    found = _task_files(tuple(roots)).find(names)
    require_own_definitions(roots, found)
    require_no_code(roots, found)
    require_own_data(context.workspace, roots, found)
    return found


@cache
def _task_files(roots: tuple[Path, ...]) -> TaskFiles:
    from finetune_stages.sources.task_files import TaskFiles, builtin_tasks

    return TaskFiles([builtin_tasks(), *roots])


def model_directory(context: Context, inputs: EvaluationInputs) -> Path:
    """Return the directory of the model to measure."""
    return context.path(context.layout.final_model if inputs.subject == "final" else context.layout.base_model)


def sealed(model: Path) -> Seal:
    """Return the seal of the model.

    Raises:
        StageError: ``ModelNotFound``, ``ModelIncomplete``.
    """
    if not model.is_dir():
        raise StageError(reasons.MODEL_NOT_FOUND, f"{model}: there is no model; rerun the stage that writes it.")
    seal = read_seal(model)
    if seal is None:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: the model is incomplete; rerun the stage that writes it.",
        )
    return seal


def _lm_eval() -> str:
    from importlib import metadata

    try:
        return metadata.version("lm-eval")
    except metadata.PackageNotFoundError as error:
        raise StageError(
            reasons.ENGINE_MISSING, "image: the package lm-eval is missing; install finetune-operator[evaluation]."
        ) from error


def _own_tasks(base: Path, definitions: Iterable[Definition]) -> str:
    """Return a digest of the user's tasks and their data below ``base``; empty if a task runs code or reads other data than files."""
    from finetune_stages.sources.task_files import builtin_tasks

    builtin = builtin_tasks()
    found = []
    for definition in definitions:
        if not definition.path.is_relative_to(builtin):
            if definition.runs_code:
                return ""
            data = list(_data(base, definition.config))
            if "" in data:
                return ""
            found.append([json.dumps(definition.config, sort_keys=True, default=str), data])
    return digest(sorted(found)) if found else "none"


def _data(base: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield digests of the data files of a task, or of the tasks in a group; an empty one for other data."""
    members = config.get("task")
    if isinstance(members, list):
        for member in members:
            if isinstance(member, Mapping):
                yield from _data(base, member)
        if "dataset_path" not in config:
            return
    elif "group" in config:
        return
    files = data_files(config)
    if config.get("dataset_path") not in _LOADERS or not files:
        yield ""
        return
    for name in files:
        path = base / name
        try:
            yield file_sha256(path) if path.is_file() else ""
        except PermissionError as error:
            raise StageError(
                reasons.TASK_INVALID, f"evaluation.tasks: user {os.getuid()} may not read {path}; change its mode or owner."
            ) from error


def data_files(config: Mapping[str, Any]) -> list[str]:
    """Return the data files in a task's definition."""
    arguments = config.get("dataset_kwargs")
    return texts(arguments.get("data_files")) if isinstance(arguments, Mapping) else []


def texts(value: Any) -> list[str]:
    """Return the strings in a string, or in a list or a mapping of such values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []
