"""The gate's verdicts: bounds, direction, standard errors, and what cannot be evaluated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.gate import Inconclusive, Scores, Verdict, check_requirements, compares
from finetune_operator.core.resolved_spec import Requirement, read

SCORES = Scores(
    after={"arc.acc": 0.50, "arc.acc_stderr": 0.03, "holdout.bits_per_byte": 2.0, "holdout.bits_per_byte_stderr": 0.1, "own.odd": 1.0},
    before={"arc.acc": 0.60, "arc.acc_stderr": 0.04, "holdout.bits_per_byte": 1.8, "own.odd": 1.0},
    higher_is_better={"arc.acc": True, "holdout.bits_per_byte": False},
)  # fmt: skip


def verdict(**requirement: Any) -> Verdict:
    found = check_requirements([read(Requirement, requirement)], SCORES)
    assert not isinstance(found, Inconclusive), found
    return found[0]


@pytest.mark.parametrize(
    ("requirement", "passed", "bound", "margin"),
    [
        ({"metric": "arc.acc", "min": 0.5}, True, 0.5, 0.0),
        ({"metric": "arc.acc", "min": 0.51}, False, 0.51, -0.01),
        ({"metric": "arc.acc", "max": 0.6}, True, 0.6, 0.1),
        ({"metric": "holdout.bits_per_byte", "max": 1.9}, False, 1.9, -0.1),
        # The metric's own direction defines what a regression is.
        ({"metric": "arc.acc", "maxRegression": 0.1}, True, 0.5, 0.0),
        ({"metric": "arc.acc", "maxRegression": 0.05}, False, 0.55, -0.05),
        ({"metric": "holdout.bits_per_byte", "maxRegression": 0.2}, True, 2.0, 0.0),
        ({"metric": "holdout.bits_per_byte", "maxRegression": 0.0}, False, 1.8, -0.2),
        # Of several bounds the one that is missed most is reported.
        ({"metric": "arc.acc", "min": 0.1, "max": 0.45}, False, 0.45, -0.05),
        ({"metric": "arc.acc", "min": 0.4, "maxRegression": 0.2}, True, 0.4, 0.1),
    ],
)
def test_a_bound_holds_or_is_missed(requirement: dict[str, Any], passed: bool, bound: float, margin: float) -> None:
    found = verdict(**requirement)
    assert (found.passed, found.bound, found.margin) == (passed, pytest.approx(bound), pytest.approx(margin))
    assert ("missed by" in found.message) is not passed


def test_a_miss_within_the_standard_error_is_forgiven_where_that_is_asked() -> None:
    assert not verdict(metric="arc.acc", min=0.52).passed
    tolerated = verdict(metric="arc.acc", min=0.52, withinStandardError=True)
    assert tolerated.passed
    assert tolerated.message == "arc.acc is 0.5, at least 0.52 is required; missed by 0.02, within its standard error of 0.03"
    assert not verdict(metric="arc.acc", min=0.54, withinStandardError=True).passed


def test_a_regression_has_the_standard_errors_of_both_measurements() -> None:
    assert verdict(metric="arc.acc", maxRegression=0.05, withinStandardError=True).passed, "0.05 = hypot(0.03, 0.04)"
    assert not verdict(metric="arc.acc", maxRegression=0.049, withinStandardError=True).passed


def test_status_has_value_bound_and_margin() -> None:
    assert verdict(metric="arc.acc", min=0.53).as_status() == {
        "metric": "arc.acc", "passed": False, "value": 0.5, "bound": 0.53, "margin": -0.03,
        "message": "arc.acc is 0.5, at least 0.53 is required; missed by 0.03",
    }  # fmt: skip


def test_a_metric_that_was_not_measured_is_reported_with_those_that_were() -> None:
    found = check_requirements([read(Requirement, {"metric": "mmlu.acc", "min": 0.1})], SCORES)
    assert isinstance(found, Inconclusive)
    assert found.reason.name == "MetricMissing"
    assert found.message == "gate: mmlu.acc was not measured; use one of arc.acc, holdout.bits_per_byte, own.odd."


def test_of_many_metrics_a_few_are_named() -> None:
    many = Scores({f"task{number:02}.acc": 0.5 for number in range(20)}, {}, {})
    found = check_requirements([read(Requirement, {"metric": "mmlu.acc", "min": 0.1})], many)
    assert isinstance(found, Inconclusive)
    assert found.message.endswith("task11.acc and 8 more.")
    nothing = check_requirements([read(Requirement, {"metric": "mmlu.acc", "min": 0.1})], Scores({"seconds": 1.0}, {}, {}))
    assert isinstance(nothing, Inconclusive)
    assert nothing.message.endswith("was not measured; the evaluation has no scores.")


def test_a_regression_needs_a_baseline_and_a_direction() -> None:
    found = check_requirements([read(Requirement, {"metric": "own.odd", "maxRegression": 0.1})], SCORES)
    assert isinstance(found, Inconclusive)
    assert found.reason.name == "DirectionUnknown"
    found = check_requirements(
        [read(Requirement, {"metric": "arc.acc", "maxRegression": 0.1})], Scores(SCORES.after, {}, SCORES.higher_is_better)
    )
    assert isinstance(found, Inconclusive)
    assert found.message == "gate: arc.acc was not measured on the base model; remove maxRegression, or use min or max."


def test_the_baseline_is_measured_for_a_regression_only() -> None:
    assert not compares([Requirement("arc.acc", min=0.1)])
    assert compares([Requirement("arc.acc", min=0.1), Requirement("arc.acc", max_regression=0.0)])


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.booleans())
def test_min_is_max_of_the_mirrored_metric(value: float, bound: float, forgiving: bool) -> None:
    """The two differ only in the sign."""

    def passes(sign: float, **requirement: Any) -> bool:
        scores = Scores({"a.b": sign * value, "a.b_stderr": 1.0}, {}, {})
        found = check_requirements(
            [read(Requirement, {"metric": "a.b", "withinStandardError": forgiving, **requirement})], scores
        )
        assert not isinstance(found, Inconclusive)
        return found[0].passed

    assert passes(1.0, min=bound) == passes(-1.0, max=-bound)
