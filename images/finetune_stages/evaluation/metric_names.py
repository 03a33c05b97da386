"""Validation of the scores' names before anything is measured: duplicate names, and metrics that lm-eval does not compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import ConfigurableTask, Task

from finetune_contract import reasons
from finetune_stages.chat.task_rows import require_own_names
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import Definition, builtin_tasks

from .own_task import OwnTask
from .scores import metric_key, safe
from .task_rules import ALLOW, code_is_allowed

_OF_CHATS = ("bits_per_byte", "loss")
"""Metrics of tasks with chat rows."""
_SCORED = {
    "loglikelihood": {"perplexity", "acc"},
    "loglikelihood_rolling": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
    "multiple_choice": {
        "acc", "f1", "mcc", "acc_norm", "acc_bytes", "exact_match", "brier_score", "likelihood", "acc_mutual_info",
    },
}  # fmt: skip
"""Metrics by kind of output, of ``lm_eval.api.task.ConfigurableTask.process_results``: it silently ignores any other."""


def check_names(built: Iterable[Any], chats: Iterable[str]) -> None:
    """Check that every score of tasks and groups has a unique name, and that every metric is computed.

    Args:
        built: lm-eval's tasks and groups.
        chats: names of the tasks with chat rows.

    Raises:
        StageError: ``TaskInvalid``.
    """
    tasks, groups = leaves(built)
    for task in tasks:
        if isinstance(task, OwnTask):
            _check_metrics(task)
    for group in groups:
        _check_group(group)
    owners: dict[str, str] = {}
    require_own_names(
        safe(name) for name in [*(task.task_name for task in tasks), *(group.name for group in groups)]
    )  # members too
    of_chats = [(f"task {name}", key) for name in chats for key in (safe(name), *(metric_key(name, each) for each in _OF_CHATS))]
    for owner, key in [*of_chats, *_keys(tasks, groups)]:
        other = owners.setdefault(key, owner)
        if other != owner:
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.tasks: {other} and {owner} have the same name for a score, {key}; rename one of them.",
            )


def require_known_metrics(definitions: Sequence[Definition]) -> None:
    """Check that lm-eval has all metrics in the user's files, if the platform allows no code: others are programs, which lm-eval would run.

    Raises:
        StageError: ``TaskInvalid``.
    """
    if code_is_allowed():
        return
    for definition in definitions:
        if definition.path.is_relative_to(builtin_tasks()):
            continue
        names = _metrics(definition.config)
        unknown = [name for name in names if name not in metric_registry]
        if unknown:
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.taskFiles: {definition.path.name}: metric: {unknown[0]} is not a metric of lm-eval, and code of a metric is not"
                f" allowed here; use one of lm-eval, {ALLOW}",
            )


def metrics_of_lm_eval(definitions: Sequence[Definition]) -> set[str]:
    """Return the names of the metrics in those definitions that are lm-eval's own."""
    builtin = (definition for definition in definitions if definition.path.is_relative_to(builtin_tasks()))
    return {name for definition in builtin for name in _metrics(definition.config)}


def _metrics(value: Any) -> Iterator[str]:
    """Yield the names of all metrics in a definition, also in tasks that a group defines inline."""
    if isinstance(value, dict):
        if isinstance(value.get("metric"), str):
            yield value["metric"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _metrics(item)


def leaves(built: Iterable[Any]) -> tuple[list[Task], list[Group]]:
    """Return the tasks, including those in groups, and the groups."""
    tasks: list[Task] = []
    groups: list[Group] = []
    for each in built:
        if isinstance(each, Group):
            tasks += each.get_all_tasks()
            groups += [each, *each.get_all_groups()]
        else:
            tasks.append(each)
    return tasks, groups


def _keys(tasks: Iterable[Task], groups: Iterable[Group]) -> Iterator[tuple[str, str]]:
    """Yield each score's owner and its name. The task's name counts, too: samples are stored under it."""
    for task in tasks:
        owner = f"task {task.task_name}"
        yield owner, safe(task.task_name)
        for metric in task.aggregation():
            for filter_ in _filters(task):
                yield f"{owner} ({metric}, {filter_})", metric_key(task.task_name, str(metric), filter_)
    for group in groups:
        owner = f"group {group.name}"
        yield owner, safe(group.name)
        filters = {name for task in group.get_all_tasks() for name in _filters(task)}
        for aggregate in group.aggregate_metric_list or ():
            for filter_ in aggregate.filter_list or sorted(filters):
                yield f"{owner} ({aggregate.metric}, {filter_})", metric_key(group.name, aggregate.metric, filter_)


def _filters(task: Task) -> list[str]:
    return [str(ensemble.name) for ensemble in getattr(task, "_filters", ())] or ["none"]


def _check_metrics(task: OwnTask) -> None:
    subject = f"Task {task.task_name}"
    listed = [each["metric"] for each in task.config.metric_list or ()]
    twice = [name for name, count in Counter(map(str, listed)).items() if count > 1]
    if twice:
        raise StageError(
            reasons.TASK_INVALID,
            f"{subject}: metric_list has {twice[0]} more than once, and lm-eval uses only the last; keep one.",
        )
    filters = [name for name, count in Counter(_filters(task)).items() if count > 1]
    if filters:
        raise StageError(
            reasons.TASK_INVALID,
            f"{subject}: filter_list has {filters[0]!r} more than once, and lm-eval uses only the last; rename one.",
        )
    scored = _SCORED.get(task.OUTPUT_TYPE)
    unscored = [name for name in listed if isinstance(name, str) and scored and name not in scored]
    if unscored and not callable(task.config.process_results):
        raise StageError(
            reasons.TASK_INVALID,
            f"{subject}: metric {unscored[0]} is not computed for output_type {task.OUTPUT_TYPE}; use one of {', '.join(sorted(scored or ()))}.",
        )


def _check_group(group: Group) -> None:
    """Check that all members have the group's metrics; otherwise the mean covers only some. Only the user's own members are checked."""
    tasks = [task for task in group.get_all_tasks() if isinstance(task, ConfigurableTask)]
    if not any(isinstance(task, OwnTask) for task in tasks):
        return
    for aggregate in group.aggregate_metric_list or ():
        without = [task.task_name for task in tasks if aggregate.metric not in task.aggregation()]
        if without:
            raise StageError(
                reasons.TASK_INVALID,
                f"Group {group.name}: aggregate_metric_list has {aggregate.metric}, which its member {without[0]} does not have; add it there,"
                " or remove it.",
            )
