"""lm-eval's tasks, made from the definitions that were found; what is wrong with one, or with its data, becomes a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager, _factory
from lm_eval.tasks._index import TaskIndex

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import causes, classify, first_line
from finetune_stages.sources.hub import hub_fault
from finetune_stages.sources.origin import Origin
from finetune_stages.sources.task_files import Definition, builtin_tasks

from .own_task import OwnTask
from .questions import data_files

TASK_DATA = Origin(
    "data", "evaluation.tasks", "dataset", reasons.TASK_INVALID, reasons.TASK_INVALID, reasons.TASK_DATA_UNREACHABLE
)


def build_tasks(
    names: Sequence[str], definitions: Sequence[Definition], manager: TaskManager, limit: int | None = None
) -> list[Any]:
    """Return tasks and groups for ``names``, with their data read (from the workspace, the hub's cache or the hub).

    ``manager`` is told the definitions, and no others. ``limit``: how many documents of each are asked; ``None`` for all.

    Raises:
        StageError: ``TaskInvalid``, ``TaskDataUnreachable``.
    """
    for definition in definitions:
        TaskIndex.process_cfg(definition.config, definition.path, manager.task_index)
    built: list[Any] = []
    for name in dict.fromkeys(names):
        try:
            with _own_tasks_checked(definitions, limit):
                loaded = manager.load([name])
        except Exception as error:
            raise task_fault(error, f"Task {name}{_place(name, definitions)}") from error
        for task in loaded["tasks"].values():
            _require_runnable(task)
        group = loaded["groups"].get(name)
        built += loaded["tasks"].values() if group is None else [group]
    try:
        manager.load(built)
    except ValueError as error:  # a task that two of the names contain
        raise StageError(reasons.TASK_INVALID, f"evaluation.tasks: {first_line(error)}; name only one of them.") from error
    return built


def task_fault(error: Exception, subject: str) -> StageError:
    """Return what an exception says about a task: its data cannot be had, or the task itself is wrong.

    A task is a user's (or lm-eval's) program, and raises what it likes.
    """
    known, links = classify(error), causes(error)
    if known.reason is not reasons.CRASHED:
        return known
    if any(type(link).__name__ == "DatasetNotFoundError" for link in links):
        remedy = "correct the task, or accept the data's terms and put a token that may read it into HF_TOKEN"
        return StageError(reasons.TASK_INVALID, f"{subject}: {first_line(error)} Either {remedy} (evaluation.secretRef).")
    fault = hub_fault(error, TASK_DATA, f"of {subject[0].lower()}{subject[1:]}")
    if fault is not None:
        return fault
    if any(isinstance(link, FileNotFoundError) and "://" in str(link) for link in links):  # datasets' word for any refusal
        return StageError(reasons.TASK_DATA_UNREACHABLE, f"{subject}: {first_line(error)}")
    if isinstance(error, StopIteration):  # of the library that reads an empty file
        return StageError(reasons.TASK_INVALID, f"{subject}: its data has no rows; add some.")
    if isinstance(error, RecursionError):
        return StageError(
            reasons.TASK_INVALID, f"{subject}: it contains itself, or is nested too deeply; correct its definition."
        )
    return StageError(reasons.TASK_INVALID, f"{subject}: {_said(error)}")


@contextmanager
def _own_tasks_checked(definitions: Sequence[Definition], limit: int | None) -> Iterator[None]:
    """Let lm-eval make an :class:`OwnTask` of every task that a user's file defines, alone or within a group."""
    builtin = builtin_tasks()
    own = {
        str(definition.config.get(kind))
        for definition in definitions for kind in ("task", "group") if not definition.path.is_relative_to(builtin)
    }  # fmt: skip

    def make(config: dict[str, Any]) -> ConfigurableTask:
        source = (config.get("metadata") or {}).get("config_source", "inline")
        inside, _, _ = str(config.get("task")).partition("::")  # how lm-eval names a task that a group defines on the spot
        is_own = inside in own if source == "inline" else not Path(source).is_relative_to(builtin)
        return OwnTask(config, limit) if is_own else ConfigurableTask(config=config)

    before = _factory.ConfigurableTask
    _factory.ConfigurableTask = make
    try:
        yield
    finally:
        _factory.ConfigurableTask = before


def _said(error: Exception) -> str:
    """Return the exception's name and text, and those of its cause, which may know the row."""
    links = [error, error.__cause__] if error.__cause__ else [error]
    return " - ".join(f"{type(link).__name__}: {first_line(link, 300)}" for link in links)


def _place(name: str, definitions: Sequence[Definition]) -> str:
    """Return where the task is defined and where its data is, as far as its own file says so."""
    for definition in definitions:
        if name in (definition.config.get("task"), definition.config.get("group")):
            files = data_files(definition.config)
            return f" ({', '.join([str(definition.path), *files])})"
    return ""


def _require_runnable(task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise StageError(
            reasons.TASK_INVALID, f"Task {task.task_name} runs code that the model writes, which is not offered; leave it out."
        )
    if getattr(task, "MULTIMODAL", False):
        raise StageError(
            reasons.TASK_INVALID, f"Task {task.task_name} asks about pictures or sound, and the model reads text; leave it out."
        )
