"""Rules for the user's task files: they define tasks of their own, and run code only if the platform allows it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract import reasons
from finetune_contract.documents import TASK_CODE_VARIABLE
from finetune_stages.sdk import StageError

if TYPE_CHECKING:
    from finetune_stages.sources.task_files import Definition


ALLOW = "or have it allowed: with allow.taskCode in the operator's configuration, or on your machine with --allow-code."
"""Remedy for code that is not allowed."""


def require_own_definitions(roots: Sequence[Path], found: Iterable[Definition]) -> None:
    """Check that no file in ``roots`` defines a task that lm-eval has, too, and that is measured: lm-eval's definition is used.

    Raises:
        StageError: ``TaskInvalid``.
    """
    from finetune_stages.sources.task_files import TaskFiles, builtin_tasks

    builtin = builtin_tasks()
    measured = {
        str(definition.config[kind])
        for definition in found for kind in ("task", "group")
        if definition.path.is_relative_to(builtin) and kind in definition.config
    }  # fmt: skip
    both = sorted(measured & TaskFiles(roots).names)
    if both:
        raise StageError(
            reasons.TASK_INVALID,
            f"evaluation.taskFiles: {both[0]!r} is the name of a task of lm-eval; rename the task in your file.",
        )


def code_is_allowed() -> bool:
    """Return whether the platform allows code of task files."""
    return os.environ.get(TASK_CODE_VARIABLE) != "0"


def require_no_code(roots: Sequence[Path], definitions: Iterable[Definition]) -> None:
    """Check that no task file runs code, if the platform does not allow it: code in the pod of the evaluation could write the scores.

    Raises:
        StageError: ``TaskInvalid``.
    """
    if code_is_allowed():
        return
    for definition in definitions:
        if definition.runs_code and any(definition.path.is_relative_to(root) for root in roots):
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.taskFiles: {definition.path.name} runs code (!function, class or hf_evaluate), which is not allowed here;"
                f" use templates, {ALLOW}",
            )
