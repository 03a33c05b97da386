"""Values that are each valid and cannot all hold, among the effective values of a run.

The CRD's rules refuse what a run contradicts on its own. Here the presets and the defaults of namespace and operator count too, which no
rule of the API server sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from finetune_operator.api.evaluation import SINGLE_TASKS

from .paths import lookup

HOLDOUT = "holdout."
"""How the metrics of the held-out rows begin."""


def contradiction(values: Mapping[str, Any]) -> str | None:
    """Return the first contradiction as a sentence that begins with the field, ``None`` where there is none.

    Args:
        values: a whole ``spec``, with every default.
    """
    for check in _CHECKS:
        sentence = check(values)
        if sentence:
            return sentence
    return None


def processes(training: Mapping[str, Any]) -> int:
    """Return how many training processes each pod has."""
    return int(training.get("processesPerWorker") or max(1, training["gpusPerWorker"]))


def _batch(values: Mapping[str, Any]) -> str | None:
    training = values["training"]
    batch, workers, each = training["effectiveBatchSize"], training["workers"], processes(training)
    if not training["enabled"] or batch % (workers * each) == 0:
        return None
    return (
        f"training.effectiveBatchSize: {batch} rows cannot be shared evenly by {workers} workers with {each} processes each; use a multiple"
        f" of {workers * each}, or change training.workers"
    )


def _measured(values: Mapping[str, Any]) -> str | None:
    evaluation = values["evaluation"]
    if not evaluation["enabled"] or evaluation["tasks"] or _without_held_out_rows(values) is None:
        return None
    return f"evaluation.tasks: is empty, and {_without_held_out_rows(values)}, so that nothing is measured; name a task"


def _gate_needs_evaluation(values: Mapping[str, Any]) -> str | None:
    if not lookup(values, "gate.requirements") or values["evaluation"]["enabled"]:
        return None
    return "gate: evaluation.enabled is false, so that no metric is measured; remove gate, or set evaluation.enabled to true"


def _metrics(values: Mapping[str, Any]) -> str | None:
    return next(_unmeasured(values), None)


def _unmeasured(values: Mapping[str, Any]) -> Iterator[str]:
    tasks = values["evaluation"]["tasks"]
    for index, requirement in enumerate(lookup(values, "gate.requirements") or ()):
        metric, field = requirement["metric"], f"gate.requirements[{index}].metric"
        if metric.startswith(HOLDOUT):
            why = _without_held_out_rows(values)
            if why:
                yield f"{field}: {metric} is measured on held-out rows, and {why}; hold rows out, or remove the requirement"
        elif not any(_belongs(metric, task) for task in tasks):
            listed = ", ".join(tasks) or "none"
            yield f"{field}: {metric} belongs to no task in evaluation.tasks ({listed}); name <task>.<metric>, or add its task"


def _belongs(metric: str, task: str) -> bool:
    """Whether a metric may be one of a task, or of a task in the group of that name."""
    return metric.startswith(f"{task}.") or (task not in SINGLE_TASKS and metric.startswith(f"{task}_"))


def _without_held_out_rows(values: Mapping[str, Any]) -> str | None:
    """Why held-out rows are not measured; ``None`` where they are."""
    if not values["evaluation"]["holdout"]:
        return "evaluation.holdout is false"
    dataset = values["dataset"]
    return "dataset.trainSplit: 1 holds none out" if dataset["trainSplit"] == 1 and not dataset.get("evalUri") else None


_CHECKS: tuple[Callable[[Mapping[str, Any]], str | None], ...] = (_batch, _measured, _gate_needs_evaluation, _metrics)
