"""Evaluation tasks that are files of chat rows: ``<name>.jsonl`` among the user's task files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.workspace import HOLDOUT
from finetune_stages.sdk import StageError

TASK_FILES_VARIABLE = "FINETUNE_TASK_FILES"
"""Environment variable with the mount path of the user's task files."""


def require_own_names(names: Iterable[str]) -> None:
    """Check that no task or group has the name of the held-out rows' task.

    Raises:
        StageError: ``TaskInvalid``.
    """
    if HOLDOUT in names:
        raise StageError(
            reasons.TASK_INVALID,
            f"evaluation.tasks: {HOLDOUT!r} is reserved for the held-out rows; rename your task or group.",
        )


def own_roots(task_files: bool) -> list[Path]:
    """Return the directory of the user's task files, which ``task_files`` asks for; an empty list without them.

    They come from the ConfigMap only: pods of training can write to the workspace.

    Raises:
        StageError: ``TaskNotFound``: the ConfigMap of task files is not mounted.
    """
    mounted = os.environ.get(TASK_FILES_VARIABLE) if task_files else None
    if task_files and not (mounted and Path(mounted).is_dir()):
        raise StageError(
            reasons.TASK_NOT_FOUND,
            f"{TASK_FILES_VARIABLE}: it is not the path of a directory; mount the ConfigMap of evaluation.taskFiles.",
        )
    return [Path(mounted)] if mounted else []


def chat_files(roots: Sequence[Path], tasks: Sequence[str]) -> dict[str, Path]:
    """Return the files of the ``tasks`` that are chat rows, by name.

    They are scored like held-out rows. A YAML definition of the same name takes precedence: then the rows are its data.
    """
    found = {
        name: next(path for root in roots if (path := root / f"{name}.jsonl").is_file())
        for name in tasks
        if any((root / f"{name}.jsonl").is_file() for root in roots)
    }
    if not found:
        return {}
    from finetune_stages.sources.task_files import TaskFiles

    defined = TaskFiles(roots).names
    return {name: path for name, path in found.items() if name not in defined}
