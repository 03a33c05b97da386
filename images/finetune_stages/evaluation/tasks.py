"""Construction of lm-eval's tasks from their definitions, with stage errors for faulty tasks and data."""

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
from finetune_stages.sdk.fault import AddressNotAllowed, causes, classify, first_line
from finetune_stages.sources.hub import hub_fault
from finetune_stages.sources.origin import Origin
from finetune_stages.sources.task_files import Definition, builtin_tasks

from .metric_names import metrics_of_lm_eval, require_known_metrics
from .own_task import OwnTask
from .questions import data_files
from .redirects import check_redirects
from .sandbox import use_sandbox
from .task_code import guard_code
from .task_rules import code_is_allowed

TASK_DATA = Origin(
    "data", "evaluation.tasks", "dataset",
    reasons.TASK_INVALID, reasons.TASK_INVALID, reasons.TASK_DATA_UNREACHABLE, reasons.TASK_DATA_UNREACHABLE, reasons.TASK_INVALID,
    reasons.TASK_INVALID,
)  # fmt: skip


def build_tasks(
    names: Sequence[str], definitions: Sequence[Definition], manager: TaskManager, limit: int | None = None
) -> list[Any]:
    """Return tasks and groups for ``names``, with their data (from the task files, web servers, or the hub).

    ``manager`` gets only these definitions. ``limit``: number of documents per task; ``None`` for all.

    Raises:
        StageError: ``TaskInvalid``, ``TaskDataUnreachable``, ``HostNotAllowed``.
    """
    use_sandbox()
    check_redirects()
    guard_code(code_is_allowed(), metrics_of_lm_eval(definitions))
    require_known_metrics(definitions)
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
    except ValueError as error:  # a task that is in two of the names
        raise StageError(reasons.TASK_INVALID, f"evaluation.tasks: {first_line(error)}; use only one of them.") from error
    return built


def task_fault(error: Exception, subject: str) -> StageError:
    """Return the stage error for a task's exception: its data is unavailable, or the task is invalid.

    A task can run any code and raise any exception.
    """
    links = causes(error)
    known = next((link for link in links if isinstance(link, StageError)), None) or classify(error)
    if known.reason is not reasons.CRASHED:
        return known.of(subject) if isinstance(known, AddressNotAllowed) else known
    if any(type(link).__name__ == "DatasetNotFoundError" for link in links):
        remedy = "correct the task, or accept the data's terms and put a token that may read it into HF_TOKEN"
        return StageError(reasons.TASK_INVALID, f"{subject}: {first_line(error)} Either {remedy} (evaluation.secretRef).")
    fault = hub_fault(error, TASK_DATA, f"of {subject[0].lower()}{subject[1:]}")
    if fault is not None:
        return fault
    if any(isinstance(link, FileNotFoundError) and "://" in str(link) for link in links):  # datasets raises it for any HTTP error
        return StageError(reasons.TASK_DATA_UNREACHABLE, f"{subject}: {first_line(error)}")
    if isinstance(error, StopIteration):  # raised by the library for an empty file
        return StageError(reasons.TASK_INVALID, f"{subject}: its data has no rows; add some.")
    if isinstance(error, RecursionError):
        return StageError(
            reasons.TASK_INVALID, f"{subject}: it contains itself, or is nested too deeply; correct its definition."
        )
    return StageError(reasons.TASK_INVALID, f"{subject}: {_detail(error)}")


@contextmanager
def _own_tasks_checked(definitions: Sequence[Definition], limit: int | None) -> Iterator[None]:
    """Make lm-eval create an :class:`OwnTask` for every task in a user's file, alone or in a group."""
    builtin = builtin_tasks()
    own = {
        str(definition.config.get(kind))
        for definition in definitions for kind in ("task", "group") if not definition.path.is_relative_to(builtin)
    }  # fmt: skip

    def make(config: dict[str, Any]) -> ConfigurableTask:
        source = (config.get("metadata") or {}).get("config_source", "inline")
        inside, _, _ = str(config.get("task")).partition("::")  # lm-eval's name for a task that is defined inline in a group
        is_own = inside in own or (source != "inline" and not Path(source).is_relative_to(builtin))
        return OwnTask(config, limit) if is_own else ConfigurableTask(config=config)

    before = _factory.ConfigurableTask
    _factory.ConfigurableTask = make
    try:
        yield
    finally:
        _factory.ConfigurableTask = before


def _detail(error: Exception) -> str:
    """Return name and text of the exception and of its cause, which may have the row."""
    links = [error, error.__cause__] if error.__cause__ else [error]
    return " - ".join(f"{type(link).__name__}: {first_line(link, 300)}" for link in links)


def _place(name: str, definitions: Sequence[Definition]) -> str:
    """Return the paths of the task's definition and of its data, as far as its file states them."""
    for definition in definitions:
        if name in (definition.config.get("task"), definition.config.get("group")):
            files = data_files(definition.config)
            return f" ({', '.join([str(definition.path), *files])})"
    return ""


def _require_runnable(task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise StageError(
            reasons.TASK_INVALID,
            f"evaluation.tasks: {task.task_name} runs code that the model generates, which is not supported; remove it.",
        )
    if getattr(task, "MULTIMODAL", False):
        raise StageError(
            reasons.TASK_INVALID,
            f"evaluation.tasks: {task.task_name} has images or audio, and the model reads text only; remove it.",
        )
