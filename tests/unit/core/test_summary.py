"""What is trimmed when status would grow too large, and what the columns show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.core.observation import Observed
from finetune_operator.core.plan_builder import PlanBuilder
from finetune_operator.core.run import Run
from finetune_operator.core.summary import short_name, summary
from finetune_operator.core.trim import METADATA_ROOM, OBJECT_SIZE_LIMIT, size_of, trim
from world import NOW, SETTINGS, World

LARGE: dict[str, Any] = {
    "sample": [{"row": 1, "parts": [{"text": "x" * 600}]}],
    "history": [{"step": step, "loss": 1.0} for step in range(64)],
    "failure": {"reason": "Crashed", "logTail": "x" * 2000},
    "metrics": {"evaluation": {f"task{number:03}.acc": 0.5 for number in range(200)}},
    "stages": [{"name": "dataset", "message": "m" * 900}],
}


def test_a_small_status_is_left_alone() -> None:
    assert trim(LARGE, 100) == LARGE


@pytest.mark.parametrize(
    ("room", "gone"),
    [
        (size_of(LARGE) - 1, {"sample"}),
        (size_of(LARGE) - 700, {"sample", "history"}),
        (6200, {"sample", "history", "logTail"}),
        (3000, {"sample", "history", "logTail", "scores"}),
        (1800, {"sample", "history", "logTail", "scores", "messages"}),
        (10, {"sample", "history", "logTail", "scores", "messages"}),
    ],
)
def test_status_is_trimmed_in_a_fixed_order(room: int, gone: set[str]) -> None:
    found = trim(LARGE, OBJECT_SIZE_LIMIT - METADATA_ROOM - room)
    trimmed = {
        "sample": "sample" not in found, "history": len(found["history"]) < 64, "logTail": "logTail" not in found["failure"],
        "scores": len(found["metrics"]["evaluation"]) < 200, "messages": "message" not in found["stages"][0],
    }  # fmt: skip
    assert {name for name, is_gone in trimmed.items() if is_gone} == gone
    assert found["failure"]["reason"] == "Crashed"


def test_a_status_without_any_of_it_stays() -> None:
    assert trim({"phase": "Running" * 20}, OBJECT_SIZE_LIMIT) == {"phase": "Running" * 20}
    assert json.dumps(trim({}, 0)) == "{}"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("org/tiny", "org/tiny"),
        ("hf://org/tiny", "org/tiny"),
        ("/models/tiny/", "tiny"),
        ("oci://r.io/a/tiny:1", "tiny:1"),
        (f"oci://r.io/a/tiny@sha256:{'0' * 64}", "tiny"),
        ("s3://models/a/tiny/", "tiny"),
    ],
)
def test_the_name_of_a_base_model(uri: str, name: str) -> None:
    assert short_name(uri) == name


def column(tasks: list[str], scores: dict[str, float]) -> str | None:
    world = World.new({"dataset": {"uri": "d"}, "evaluation": {"tasks": tasks}})
    world.settle()
    status = {**world.run["status"], "metrics": {"evaluation": scores}}
    found: str | None = summary(PlanBuilder(Run.parse({**world.run, "status": status}), Observed(SETTINGS), NOW)).get("score")
    return found


def test_the_score_is_the_held_out_rows_else_that_of_the_first_task() -> None:
    assert column(["arc_easy"], {"holdout.bits_per_byte": 1.23456, "arc_easy.acc": 0.5}) == "1.235"
    scores = {"arc_easy.acc_stderr": 0.1, "arc_easy.acc": 0.25, "boolq.acc": 0.75}
    assert column(["boolq", "arc_easy"], scores) == "0.75"
    assert column(["arc_easy"], scores) == "0.25"
    assert column(["other"], scores) is None
