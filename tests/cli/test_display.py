"""The lines of a run on a pipe or in a file."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from finetune_operator.cli.display import LineDisplay
from finetune_operator.cli.stages_view import stage_lines
from finetune_operator.core.run import Run

FAILURE = {"stage": "dataset", "reason": "BadRow", "message": "rows.jsonl: row 1 is bad."}


def run(**status: Any) -> Run:
    stage = {
        "name": "dataset", "state": "Failed", "reason": "BadRow", "message": FAILURE["message"], "attempt": 1, "round": 0,
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:03Z",
    }  # fmt: skip
    return Run.parse({"metadata": {"name": "demo"}, "spec": {}, "status": {"stages": [stage], **status}})


@pytest.mark.parametrize(
    ("status", "complete", "line"),
    [
        ({"failure": FAILURE}, False, "dataset: failed (3s): BadRow"),
        ({"failure": FAILURE}, True, "dataset: failed (3s): BadRow: rows.jsonl: row 1 is bad."),
        ({}, False, "dataset: failed (3s): BadRow: rows.jsonl: row 1 is bad."),
        ({"failure": {**FAILURE, "stage": "model"}}, False, "dataset: failed (3s): BadRow: rows.jsonl: row 1 is bad."),
    ],
    ids=["the outcome follows", "no outcome follows", "the run goes on", "another stage ended the run"],
)
def test_the_failure_of_a_run_is_printed_once(status: dict[str, Any], complete: bool, line: str) -> None:
    screen = Console(file=io.StringIO(), width=200)
    with LineDisplay(screen, complete=complete) as display:
        display.show(run(**status))
        display.show(run(**status))
    assert isinstance(screen.file, io.StringIO)
    assert [text.partition(" ")[2] for text in screen.file.getvalue().splitlines()] == [line]


@pytest.mark.parametrize(("reason", "seconds"), [("Running", 60.0), ("SecretMissing", None)])
def test_a_stage_that_waits_has_no_duration(reason: str, seconds: float | None) -> None:
    stage = {
        "name": "dataset",
        "state": "Running",
        "reason": reason,
        "attempt": 1,
        "round": 0,
        "startedAt": "2026-01-01T00:00:00Z",
    }
    (line,) = stage_lines(run(stages=[stage]), datetime(2026, 1, 1, 0, 1, tzinfo=UTC))
    assert line.seconds == seconds
