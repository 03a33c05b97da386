"""Progress lines: written by stages, read from the ends of logs."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.progress import MARK, Progress, from_rhoai, last, line, to_rhoai

numbers = st.floats(0, 1e6, allow_nan=False)
whole = st.integers(0, 10**9)
reports = st.builds(
    Progress, percent=st.integers(0, 100), step=st.none() | whole, total_steps=st.none() | whole, epoch=st.none() | numbers,
    total_epochs=st.none() | numbers, eta_seconds=st.none() | whole, loss=st.none() | numbers, learning_rate=st.none() | numbers,
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


def test_metrics_as_texts_and_notes_of_any_length() -> None:
    found = from_rhoai({"progressPercentage": 1, "trainMetrics": {"loss": "1.5"}, "note": "n" * 500, "currentStep": "7"})
    assert found == Progress(1, step=7, loss=1.5, note="n" * 120)
    assert from_rhoai({"progressPercentage": 1, "trainMetrics": "none", "note": 5}) == Progress(1)
