"""Rules for the user's task files: they define tasks of their own, and their data is not in the workspace.

A pod of training can write to the workspace. If it could define what lm-eval asks, or provide the right answers, scores would prove nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.documents import TASK_CODE_VARIABLE
from finetune_stages.sdk import StageError

if TYPE_CHECKING:
    from finetune_stages.sources.task_files import Definition

_REMOTE = re.compile(r"^(https?|hf|s3|gs|abfss?|ftp)://")
_SCHEME = re.compile(r"^[A-Za-z0-9+.-]+://")
_GLOB = re.compile(r"[*?\[{]")
_DATA_FIELDS = ("dataset_path", "dataset_name", "dataset_kwargs")


def data_directory(roots: Sequence[Path]) -> Path:
    """Return the directory that relative data files are relative to: that of the task files, or an empty one."""
    return roots[0] if roots else Path(tempfile.mkdtemp())


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


def require_no_code(roots: Sequence[Path], definitions: Iterable[Definition]) -> None:
    """Check that no task file runs code, if the platform does not allow it: code in the pod of the evaluation could write the scores.

    Raises:
        StageError: ``TaskInvalid``.
    """
    if os.environ.get(TASK_CODE_VARIABLE) != "0":
        return
    for definition in definitions:
        if definition.runs_code and any(definition.path.is_relative_to(root) for root in roots):
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.taskFiles: {definition.path.name} runs code (!function, class or hf_evaluate), which is not allowed here;"
                " use templates, or ask an administrator to set allow.taskCode in the operator's configuration.",
            )


def require_own_data(workspace: Path, roots: Sequence[Path], definitions: Iterable[Definition]) -> None:
    """Check that no task reads data from the workspace.

    Raises:
        StageError: ``TaskInvalid``.
    """
    base = roots[0] if roots else Path(tempfile.gettempdir())
    for definition in definitions:
        for text in _data_texts(definition.config):
            if any(_is_in(workspace, roots, base, part) for part in text.split("::")):
                raise StageError(
                    reasons.TASK_INVALID,
                    f"evaluation.tasks: {definition.path.name} reads {text} from the workspace; put the file into the ConfigMap of"
                    " evaluation.taskFiles and write its key.",
                )


def _data_texts(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text in a task's definition that may be a path of data, also in tasks that a group defines inline."""
    for field in _DATA_FIELDS:
        yield from _texts(config.get(field))
    members = config.get("task")
    for member in members if isinstance(members, list) else ():
        if isinstance(member, Mapping):
            yield from _data_texts(member)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _is_in(workspace: Path, roots: Sequence[Path], base: Path, text: str) -> bool:
    """Return whether a path, or a pattern of paths, is in the workspace and not among the task files."""
    if _REMOTE.match(text):
        return False
    path = _SCHEME.sub("", text)
    pattern = _GLOB.search(path)
    fixed = Path(f"{path[: pattern.start()]}x").parent if pattern else Path(path)
    try:
        resolved = (base / fixed).resolve()
    except (ValueError, OSError):  # nothing can open it
        return False
    if any(resolved.is_relative_to(root.resolve()) for root in roots):
        return False
    volume = workspace.resolve()
    return resolved.is_relative_to(volume) or (pattern is not None and volume.is_relative_to(resolved))
