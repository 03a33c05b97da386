"""Results: whole in a file, short in a termination message, trimmed in a fixed order."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.codec import DocumentError, encode
from finetune_contract.progress import Progress
from finetune_contract.reasons import STAGE_REASONS, Cause
from finetune_contract.result import MESSAGE_LIMIT, LossPoint, Result, parse_message, parse_result, termination_message, thin

RESULT = Result(
    stage="training", attempt="1.2", inputs_digest="a" * 64, outcome="Succeeded", message="done", metrics={"loss": 1.5},
    outputs={"digest": "d" * 64}, history=(LossPoint(1, 3.0), LossPoint(2, 2.0)), file="runs/x/results/y.json", file_digest="f" * 64,
)  # fmt: skip


def test_a_short_result_is_whole() -> None:
    text = termination_message(RESULT, Progress(100, step=2, total_steps=2, loss=2.0))
    assert parse_message(text) == RESULT
    outside = json.loads(text)
    assert outside["progressPercentage"] == 100
    assert outside["currentStep"] == 2
    assert outside["trainMetrics"] == {"loss": 2.0}


@given(
    points=st.integers(0, 2000), metrics=st.integers(0, 400), message=st.text(max_size=3000), outputs=st.integers(0, 10),
)  # fmt: skip
def test_a_termination_message_always_fits_and_reads_back(points: int, metrics: int, message: str, outputs: int) -> None:
    result = Result(
        "evaluation", "1.1", "a" * 64, "Succeeded", message=message, metrics={f"task_{number}.acc": 0.5 for number in range(metrics)},
        outputs={f"key{number}": "v" * 64 for number in range(outputs)},
        history=tuple(LossPoint(step, 1 / (step + 1)) for step in range(points)),
    )  # fmt: skip
    text = termination_message(result)
    assert len(text.encode()) <= MESSAGE_LIMIT
    found = parse_message(text)
    assert found is not None
    assert found.outputs == result.outputs
    assert found.truncated == (
        found.history != result.history or found.metrics != result.metrics or found.message != result.message
    )


def test_the_curve_is_trimmed_before_the_numbers_and_those_before_the_words() -> None:
    long = Result(
        "training", "1.1", "a" * 64, "Succeeded", message="m" * 200, metrics={f"m{number}": 1.0 for number in range(50)},
        history=tuple(LossPoint(step, 1.0) for step in range(500)),
    )  # fmt: skip
    found = parse_message(termination_message(long))
    assert found is not None
    assert 0 < len(found.history) <= 64
    assert found.metrics == long.metrics
    assert found.message == long.message


def test_outputs_that_alone_are_too_long_are_a_fault() -> None:
    with pytest.raises(DocumentError, match="outputs alone exceed 4096 bytes"):
        termination_message(Result("model", "1.1", "a" * 64, "Succeeded", outputs={"x": "y" * 5000}))


@pytest.mark.parametrize(
    "text", [None, "", "Traceback (most recent call last):", "[]", '{"progressPercentage": 3}', '{"finetune": 1}']
)
def test_what_a_crash_leaves_is_no_result(text: str | None) -> None:
    assert parse_message(text) is None


def test_a_result_of_another_contract_is_refused() -> None:
    with pytest.raises(DocumentError, match="contract version 1, the program wrote 9"):
        parse_result({**encode(RESULT), "contractVersion": 9})


@given(st.integers(0, 300), st.integers(0, 100))
def test_a_thinned_curve_keeps_its_ends(length: int, points: int) -> None:
    curve = [LossPoint(step, float(step)) for step in range(length)]
    found = thin(curve, points)
    assert len(found) <= max(points, 0)
    assert len(found) == min(length, points)
    if points >= 2 and length:
        assert (found[0], found[-1]) == (curve[0], curve[-1])
        assert list(found) == sorted(set(found), key=lambda point: point.step)


def test_every_reason_says_what_it_means_and_what_to_do() -> None:
    for name, reason in STAGE_REASONS.items():
        assert name == reason.name == str(reason)
        assert reason.meaning.endswith(".")
        assert reason.remedy.endswith(".")
    assert {reason.cause: reason.exit_code for reason in STAGE_REASONS.values()} == {
        Cause.USER: 65, Cause.OUT_OF_MEMORY: 65, Cause.TRANSIENT: 75, Cause.INTERRUPTED: 143, Cause.CRASH: 1,
    }  # fmt: skip
