"""Results: whole in a file, short in a termination message, trimmed in a fixed order."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.codec import DocumentError, encode
from finetune_contract.progress import Progress
from finetune_contract.reasons import STAGE_REASONS, Cause
from finetune_contract.result import (
    TERMINATION_MESSAGE_LIMIT,
    LossPoint,
    Result,
    parse_message,
    parse_result,
    termination_message,
    thin,
)

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
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
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


def test_rows_of_the_sample_are_dropped_one_by_one_before_metrics_message_and_warnings() -> None:
    sample = [{"row": row, "line": 0, "tokens": 1, "learnedTokens": 1, "parts": [{"text": "x" * 600}]} for row in (1, 2, 3)]
    result = Result(
        "tokenization", "1.1", "a" * 64, "Succeeded", message="m" * 500, metrics={"rows": 3.0}, warnings=("w" * 256,) * 5,
        outputs={"digest": "d" * 64, "sample": sample},
    )  # fmt: skip
    found = parse_message(termination_message(result))
    assert found is not None
    assert found == replace(result, truncated=True, outputs={**result.outputs, "sample": sample[:2]})
    few = parse_message(termination_message(replace(result, warnings=("w" * 256,) * 8, message="m" * 1000)))
    assert few is not None
    assert (few.outputs["sample"], few.metrics, len(few.message), len(few.warnings)) == ([], result.metrics, 1000, 8)


def test_warnings_are_kept_longer_than_the_message_and_give_way_to_the_gate() -> None:
    warnings = tuple(f"{number} " + "\N{WARNING SIGN}" * 250 for number in range(8))
    result = Result(
        "evaluation", "1.1", "a" * 64, "Succeeded", message="m" * 3000, metrics={"task.acc": 0.5}, warnings=warnings,
        outputs={"digest": "d" * 64},
    )  # fmt: skip
    found = parse_message(termination_message(result, keep=["task.acc"]))
    assert found is not None
    assert (found.message, found.metrics) == ("", {"task.acc": 0.5})
    assert 0 < len(found.warnings) < 8
    assert found.warnings == warnings[: len(found.warnings)]


def test_outputs_that_alone_are_too_long_are_a_fault() -> None:
    with pytest.raises(DocumentError, match="outputs alone exceed 4096 bytes"):
        termination_message(Result("model", "1.1", "a" * 64, "Succeeded", outputs={"x": "y" * 5000}))


@pytest.mark.parametrize(
    "text", [None, "", "Traceback (most recent call last):", "[]", '{"progressPercentage": 3}', '{"finetune": 1}']
)
def test_what_a_crash_leaves_is_no_result(text: str | None) -> None:
    assert parse_message(text) is None


def test_a_result_of_another_contract_is_rejected() -> None:
    with pytest.raises(DocumentError, match="the program has contract version 9, and this release supports 2"):
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


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    for name, reason in STAGE_REASONS.items():
        assert name == reason.name == str(reason)
        assert reason.meaning.endswith(".")
        assert reason.remedy.endswith(".")
    assert {reason.cause: reason.exit_code for reason in STAGE_REASONS.values()} == {
        Cause.USER: 65, Cause.OUT_OF_MEMORY: 65, Cause.TRANSIENT: 75, Cause.INTERRUPTED: 143, Cause.CRASH: 1, Cause.LOST: 1,
    }  # fmt: skip


def _measured(tasks: int, message: str, outputs: int, kept: list[str]) -> Result:
    names = [*(f"task_{number}.acc" for number in range(tasks)), *kept]
    metrics = dict.fromkeys(names, 0.5) | {f"{name}_stderr": 0.01 for name in names}
    return Result(
        "evaluation", "1.1", "a" * 64, "Succeeded", message=message, metrics=metrics,
        outputs={"modelDigest": "v" * outputs, "higherIsBetter": dict.fromkeys(names, True)},
    )  # fmt: skip


@given(
    tasks=st.integers(0, 300), message=st.text(max_size=3000), outputs=st.integers(0, 3600),
    kept=st.lists(st.from_regex(r"z[a-z_.]{0,60}x", fullmatch=True), unique=True, max_size=24),
)  # fmt: skip
def test_metrics_to_keep_survive_while_they_fit_at_all(tasks: int, message: str, outputs: int, kept: list[str]) -> None:
    result = _measured(tasks, message, outputs, kept)
    text = termination_message(result, Progress(100), keep=[*kept, "not.measured"])
    found = parse_message(text)
    assert found is not None
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    wanted = {name for name in result.metrics if name.removesuffix("_stderr") in kept}
    alone = _measured(0, "", outputs, kept)
    if len(json.dumps({"finetune": encode(alone)}).encode()) + 100 <= TERMINATION_MESSAGE_LIMIT:
        assert wanted <= set(found.metrics)
    survived = [name for name in found.metrics if name in kept]
    assert survived == kept[: len(survived)]  # where there is no room for all: the first ones
    assert survived == kept or set(found.metrics) == set(survived)
    assert found.metrics.items() <= result.metrics.items()
    assert set(found.outputs["higherIsBetter"]) <= {*result.metrics}
    if found.metrics != result.metrics:
        assert set(found.outputs["higherIsBetter"]) <= set(found.metrics)


def test_one_more_metric_to_keep_is_dropped_only_when_there_is_no_room() -> None:
    kept = [f"gate_{number:02}.{'m' * 50}" for number in range(60)]
    found = parse_message(termination_message(_measured(200, "words", 64, kept), keep=kept))
    assert found is not None
    count = len(found.metrics)
    assert list(found.metrics) == kept[:count]
    assert 20 < count < 60
    one_more = kept[: count + 1]
    longer = replace(
        found, metrics=dict.fromkeys(one_more, 0.5), outputs={**found.outputs, "higherIsBetter": dict.fromkeys(one_more, True)}
    )
    assert len(json.dumps({"finetune": encode(longer)}, separators=(",", ":")).encode()) > TERMINATION_MESSAGE_LIMIT


def test_the_directions_of_many_tasks_do_not_make_a_result_too_long() -> None:
    """All of mmlu: 62 tasks and groups, whose directions alone are longer than a termination message."""
    found = parse_message(termination_message(_measured(250, "measured", 64, []), keep=["task_99.acc"]))
    assert found is not None
    assert {"task_99.acc", "task_99.acc_stderr"} <= set(found.metrics)
    assert found.message == "measured"
    assert found.outputs["higherIsBetter"].keys() == {name for name in found.metrics if not name.endswith("_stderr")}
