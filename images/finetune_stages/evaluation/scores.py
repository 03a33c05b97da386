"""lm-eval's results as flat metrics: ``<task>.<metric>``, or ``<task>.<metric>.<filter>`` where a task filters answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from finetune_contract import reasons
from finetune_stages.kit import StageError

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_STDERR = "_stderr"
_NO_FILTER = "none"


@dataclass(frozen=True)
class Scores:
    """Metrics by safe key (a standard error ends in ``_stderr``), and which of them should be high."""

    metrics: dict[str, float] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)


def safe(name: str) -> str:
    """``name`` with every character outside letters, digits, ``_``, ``.`` and ``-`` replaced by ``_``."""
    return _UNSAFE.sub("_", name)


def flat_scores(results: Mapping[str, Any]) -> Scores:
    """The scores of all tasks and groups in the dictionary that ``lm_eval.simple_evaluate`` returns.

    lm-eval's keys are ``<metric>,<filter>`` and ``<metric>_stderr,<filter>``; what else stands beside them (``alias``,
    ``sample_len``) has no comma. A standard error that could not be computed is left out.

    Raises:
        StageError: ``ScoreNotANumber``, naming the score.
    """
    scores = Scores()
    for task, values in results["results"].items():
        directions = results.get("higher_is_better", {}).get(task) or {}
        for name, value in values.items():
            metric, comma, filter_ = name.partition(",")
            if not comma or not isinstance(value, Real):
                continue
            is_error = metric.endswith(_STDERR)
            key = safe(".".join([task, metric.removesuffix(_STDERR), *([] if filter_ == _NO_FILTER else [filter_])]))
            if is_error:
                if math.isfinite(value):
                    scores.metrics[key + _STDERR] = float(value)
                continue
            if not math.isfinite(value):
                raise StageError(reasons.SCORE_NOT_A_NUMBER, f"{key} is {value}: {reasons.SCORE_NOT_A_NUMBER.remedy}")
            scores.metrics[key] = float(value)
            if isinstance(directions.get(metric), bool):
                scores.higher_is_better[key] = directions[metric]
    return scores
