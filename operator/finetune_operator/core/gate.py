"""The gate: whether the scores meet each requirement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_contract.reasons import Reason
from finetune_operator.api import reasons

from .resolved_spec import Requirement

_ROUNDING = 1e-9
"""Tolerance relative to a bound, because decimal fractions have no exact binary form."""


@dataclass(frozen=True)
class Scores:
    """The scores, by metric; the key of a standard error ends in ``_stderr``."""

    after: Mapping[str, float]
    before: Mapping[str, float]
    higher_is_better: Mapping[str, bool]


@dataclass(frozen=True)
class Verdict:
    """The result of one requirement. ``bound`` is the bound with the smallest margin.

    ``margin`` is the distance from the bound in the unit of the metric, negative where the bound is missed.
    """

    metric: str
    passed: bool
    value: float
    bound: float
    margin: float
    message: str

    def as_status(self) -> dict[str, Any]:
        """Return the entry of ``status.gate.requirements``."""
        return {
            "metric": self.metric, "passed": self.passed, "value": self.value, "bound": self.bound,
            "margin": float(f"{self.margin:.6g}"), "message": self.message,
        }  # fmt: skip


@dataclass(frozen=True)
class Inconclusive:
    """Why a requirement cannot be evaluated."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class _Bound:
    """One bound of a requirement: its text, its value, the margin of the score, and the standard error of the margin."""

    words: str
    at: float
    margin: float
    error: float


def check_requirements(requirements: Sequence[Requirement], scores: Scores) -> list[Verdict] | Inconclusive:
    """Return the verdict on each requirement. The gate is passed if all requirements are met."""
    verdicts = []
    for requirement in requirements:
        found = _check(requirement, scores)
        if isinstance(found, Inconclusive):
            return found
        verdicts.append(found)
    return verdicts


def compares(requirements: Sequence[Requirement]) -> bool:
    """Return whether a requirement needs the base model's score, too."""
    return any(requirement.max_regression is not None for requirement in requirements)


def _check(requirement: Requirement, scores: Scores) -> Verdict | Inconclusive:
    missing = _missing(requirement, scores)
    if missing:
        return missing
    metric = requirement.metric
    value = scores.after[metric]
    worst = min(_bounds(requirement, scores), key=lambda bound: bound.margin)
    missed = worst.margin < -_ROUNDING * max(1.0, abs(worst.at))
    tolerated = missed and requirement.within_standard_error and -worst.margin <= worst.error
    sentence = f"{metric} is {value:.6g}, {worst.words}"
    if tolerated:
        sentence += f"; missed by {-worst.margin:.3g}, within its standard error of {worst.error:.3g}"
    elif missed:
        sentence += f"; missed by {-worst.margin:.3g}"
    return Verdict(metric, not missed or tolerated, value, worst.at, worst.margin, sentence)


def _missing(requirement: Requirement, scores: Scores) -> Inconclusive | None:
    metric = requirement.metric
    if metric not in scores.after:
        known = sorted(name for name in scores.after if not name.endswith("_stderr") and "." in name)
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        remedy = f"use one of {', '.join(known[:12])}{more}" if known else "the evaluation has no scores"
        return Inconclusive(reasons.METRIC_MISSING, f"gate: {metric} was not measured; {remedy}.")
    if requirement.max_regression is None:
        return None
    if metric not in scores.before:
        return Inconclusive(
            reasons.METRIC_MISSING, f"gate: {metric} was not measured on the base model; remove maxRegression, or use min or max."
        )
    if metric not in scores.higher_is_better:
        return Inconclusive(
            reasons.DIRECTION_UNKNOWN,
            f"gate: the task of {metric} does not define whether higher values are better; use min or max.",
        )
    return None


def _bounds(requirement: Requirement, scores: Scores) -> Iterator[_Bound]:
    metric, least, most, allowed = requirement.metric, requirement.min, requirement.max, requirement.max_regression
    value, error = scores.after[metric], scores.after.get(f"{metric}_stderr", 0.0)
    if least is not None:
        yield _Bound(f"at least {least:.6g} is required", least, value - least, error)
    if most is not None:
        yield _Bound(f"at most {most:.6g} is allowed", most, most - value, error)
    if allowed is not None:
        before = scores.before[metric]
        both = math.hypot(error, scores.before.get(f"{metric}_stderr", 0.0))
        words = f"at most {allowed:.6g} worse than the base model's {before:.6g} is allowed"
        if scores.higher_is_better[metric]:
            yield _Bound(words, before - allowed, value - (before - allowed), both)
        else:
            yield _Bound(words, before + allowed, before + allowed - value, both)
