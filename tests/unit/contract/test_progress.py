"""Progress lines: written by stages, read from the ends of logs."""

from __future__ import annotations

import json
import math
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.progress import MARK, Progress, from_rhoai, last, line, to_metrics, to_rhoai, to_trainer, unfinished

numbers = st.floats(0, 1e6, allow_nan=False)
whole = st.integers(0, 10**9)
reports = st.builds(
    Progress, percent=st.integers(0, 100), step=st.none() | whole, total_steps=st.none() | whole, epoch=st.none() | numbers,
    total_epochs=st.none() | whole, eta_seconds=st.none() | whole, loss=st.none() | numbers, learning_rate=st.none() | numbers,
    tokens_per_second=st.none() | numbers, time=st.none() | whole, note=st.none() | st.text(min_size=1, max_size=50),
)  # fmt: skip


@given(reports)
def test_a_line_reads_back(report: Progress) -> None:
    assert last(f"something\n{line(report)}\nsomething else\n") == report


def test_the_newest_whole_line_counts() -> None:
    cut = line(Progress(90))[:-10]
    text = "\n".join(["noise", line(Progress(10)), "noise", "2026 " + line(Progress(20)), MARK + "[]", MARK + "{}", cut])
    assert last(text) == Progress(20)
    assert last("nothing here") is None


def test_numbers_that_rhoai_reads_as_integers_are_integers_and_nan_is_left_out() -> None:
    data = to_rhoai(Progress(45, step=3, total_steps=9, eta_seconds=12, loss=math.nan, learning_rate=1e-5))
    assert data["trainMetrics"] == {"learning_rate": 1e-5}
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert all(
        isinstance(data[key], int) for key in ("progressPercentage", "currentStep", "totalSteps", "estimatedRemainingSeconds")
    )


@pytest.mark.parametrize(
    ("data", "percent"),
    [
        ({"progressPercentage": "45"}, 45), ({"progressPercentage": 145}, 100), ({"progressPercentage": -5}, 0),
        ({"progressPercentage": 12.9}, 12),
    ],
)  # fmt: skip
def test_percentages_of_others_are_taken_with_tolerance(data: dict[str, object], percent: int) -> None:
    found = from_rhoai(data)
    assert found is not None
    assert found.percent == percent


@pytest.mark.parametrize("value", [None, "x", True, math.inf, "nan"])
def test_without_a_number_there_is_no_progress(value: object) -> None:
    assert from_rhoai({"progressPercentage": value}) is None


def test_counts_that_no_stage_has_are_dropped() -> None:
    absurd = {"currentStep": -1e300, "totalSteps": 1e300, "time": -1, "estimatedRemainingSeconds": 2**53 + 2}
    assert from_rhoai({"progressPercentage": 50, **absurd}) == Progress(50)
    assert from_rhoai({"progressPercentage": 50, "currentStep": 0, "totalSteps": 2**53}) == Progress(50, 0, 2**53)


def test_metrics_as_texts_and_notes_of_any_length() -> None:
    found = from_rhoai({"progressPercentage": 1, "trainMetrics": {"loss": "1.5"}, "note": "n" * 500, "currentStep": "7"})
    assert found == Progress(1, step=7, loss=1.5, note="n" * 120)
    assert from_rhoai({"progressPercentage": 1, "trainMetrics": "none", "note": 5}) == Progress(1)


GO_INTEGERS = {"progressPercentage", "estimatedRemainingSeconds", "currentStep", "totalSteps", "totalEpochs"}
"""Fields of type ``*int`` in ``TrainerStatus`` of opendatahub-io/trainer, ``pkg/rhai/progression``. Go rejects ``3.0`` for them."""
unusual = st.none() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300])
unusual_reports = st.builds(
    Progress, percent=st.integers(-5, 105), step=st.none() | whole, total_steps=st.none() | whole, epoch=unusual,
    total_epochs=st.none() | st.integers(1, 9), eta_seconds=st.none() | st.integers(-5, 2**40), loss=unusual, learning_rate=unusual,
    tokens_per_second=unusual, time=st.none() | st.integers(0, 2**32), note=st.none() | st.text(max_size=9),
)  # fmt: skip


@given(reports | unusual_reports)
def test_the_controller_of_openshift_ai_reads_what_the_port_serves(report: Progress) -> None:
    """A model of its Go struct: one wrong type and it drops the whole object."""
    body = json.loads(json.dumps(to_metrics(report), allow_nan=False))
    assert set(body) <= GO_INTEGERS | {"currentEpoch", "trainMetrics"}
    assert all(type(body[name]) is int for name in GO_INTEGERS & set(body))
    assert type(body.get("currentEpoch", 0.0)) in (int, float)
    assert set(body["trainMetrics"]) <= {"loss", "learning_rate", "throughput"}
    assert 0 <= body["progressPercentage"] <= 99
    assert body.get("estimatedRemainingSeconds", 1) > 0, "0 is the final report, after which the termination message is not read"


@given(reports | unusual_reports)
def test_the_status_server_of_trainer_reads_what_is_posted(report: Progress) -> None:
    """A model of ``UpdateTrainJobStatusRequest`` of kubeflow/trainer 2.3, with the limits of its markers."""
    request = json.loads(json.dumps(to_trainer(report), allow_nan=False))
    assert set(request) == {"trainerStatus"}
    status = request["trainerStatus"]
    assert set(status) <= {"progressPercentage", "estimatedRemainingSeconds", "metrics", "lastUpdatedTime"}
    assert type(status["progressPercentage"]) is int
    assert 0 <= status.get("estimatedRemainingSeconds", 0) < 2**31
    assert datetime.strptime(status["lastUpdatedTime"], "%Y-%m-%dT%H:%M:%S%z")
    for metric in status["metrics"]:
        assert set(metric) == {"name", "value"}
        assert all(isinstance(text, str) and 1 <= len(text) <= 64 for text in metric.values())
        assert math.isfinite(float(metric["value"]))
    assert len({metric["name"] for metric in status["metrics"]}) == len(status["metrics"]) <= 7


@pytest.mark.parametrize(
    ("before", "reported", "percent"), [(None, 100, 99), (None, -3, 0), (40, 30, 40), (40, 41, 41), (99, 100, 99)]
)
def test_a_stage_that_has_not_ended_has_less_than_100_percent_and_never_less_than_before(
    before: int | None, reported: int, percent: int
) -> None:
    assert unfinished(Progress(reported, step=7), None if before is None else Progress(before)) == Progress(percent, step=7)
