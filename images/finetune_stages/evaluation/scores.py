"""lm-eval's results as flat metrics: ``<task>.<metric>``, or ``<task>.<metric>.<filter>`` where a task filters answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_STDERR = "_stderr"
_NO_FILTER = "none"


@dataclass(frozen=True)
class Scores:
    """Metrics by safe key (a standard error ends in ``_stderr``), and which of them should be high."""

    metrics: dict[str, float] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)


def safe(name: str) -> str:
    """Return ``name`` with every character outside letters, digits, ``_``, ``.`` and ``-`` replaced by ``_``."""
    return _UNSAFE.sub("_", name)


def metric_key(task: str, metric: str, filter_: str = _NO_FILTER) -> str:
    """Return the name of a score: that of the filter is part of it where the task has one."""
    return safe(".".join([task, metric, *([] if filter_ == _NO_FILTER else [filter_])]))


def flat_scores(results: Mapping[str, Any]) -> Scores:
    """Return the scores of all tasks and groups in the dictionary that ``lm_eval.simple_evaluate`` returns.

    lm-eval's keys are ``<metric>,<filter>`` and ``<metric>_stderr,<filter>``; what else stands beside them (``alias``,
    ``sample_len``) has no comma. A standard error that could not be computed is left out.

    Raises:
        StageError: ``ScoreNotANumber``, naming the score; ``TaskInvalid``: two scores have the same name.
    """
    scores = Scores()
    for task, values in results["results"].items():
        directions = results.get("higher_is_better", {}).get(task) or {}
        for name, value in values.items():
            metric, comma, filter_ = name.partition(",")
            if not comma:
                continue
            key = metric_key(task, metric.removesuffix(_STDERR), filter_)
            number = _finite(value)
            if metric.endswith(_STDERR):
                if number is not None:
                    _add(scores, key + _STDERR, number)
                continue
            if number is None:
                raise StageError(reasons.SCORE_NOT_A_NUMBER, f"{key} is {value!s:.60}: {reasons.SCORE_NOT_A_NUMBER.remedy}")
            _add(scores, key, number)
            if isinstance(directions.get(metric), bool):
                scores.higher_is_better[key] = directions[metric]
    return scores


def _finite(value: Any) -> float | None:
    """Return a finite number as it is; ``None`` for all else."""
    try:
        return float(value) if isinstance(value, Real) and math.isfinite(value) else None
    except OverflowError:  # a whole number that no float holds
        return None


def _add(scores: Scores, key: str, number: float) -> None:
    if key in scores.metrics:
        raise StageError(
            reasons.TASK_INVALID, f"evaluation.tasks: two scores have the name {key}; rename a task, a metric or a filter."
        )
    scores.metrics[key] = number
