"""lm-eval's results as flat metrics: ``<task>.<metric>``, or ``<task>.<metric>.<filter>`` if a task filters answers."""

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
    """Metrics by safe key (standard errors end in ``_stderr``), and whether higher is better."""

    metrics: dict[str, float] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)


def safe(name: str) -> str:
    """Return ``name`` with every character outside letters, digits, ``_``, ``.`` and ``-`` replaced by ``_``."""
    return _UNSAFE.sub("_", name)


def metric_key(task: str, metric: str, filter_: str = _NO_FILTER) -> str:
    """Return the key of a score; it includes the filter if the task has one."""
    return safe(".".join([task, metric, *([] if filter_ == _NO_FILTER else [filter_])]))


def flat_scores(results: Mapping[str, Any]) -> Scores:
    """Return the scores of all tasks and groups in the dictionary that ``lm_eval.simple_evaluate`` returns.

    lm-eval's keys are ``<metric>,<filter>`` and ``<metric>_stderr,<filter>``; other keys (``alias``,
    ``sample_len``) have no comma. Undefined standard errors are omitted.

    Raises:
        StageError: ``ScoreNotANumber``, with the score; ``TaskInvalid``: two scores have the same name.
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
    """Return a finite number as a float; ``None`` for anything else."""
    try:
        return float(value) if isinstance(value, Real) and math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of float
        return None


def _add(scores: Scores, key: str, number: float) -> None:
    if key in scores.metrics:
        raise StageError(
            reasons.TASK_INVALID, f"evaluation.tasks: two scores have the name {key}; rename a task, a metric or a filter."
        )
    scores.metrics[key] = number
