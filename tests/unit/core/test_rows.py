"""Rows that are left out and warnings: from a stage's result to what people see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.result import Result, TokenizationOutputs, termination_message
from finetune_operator.api.kinds import JOB
from finetune_operator.core.observation import Ref
from finetune_operator.core.stages import GRAPH
from finetune_operator.core.summary import left_out, rows_summary
from unit.core.passes import edit, go, run_of, stage
from world import MINIMAL, OUTPUTS, World

FEW = replace(OUTPUTS["tokenization"], rows=2, too_long=27, nothing_to_learn=1)
TOKENIZATION = Ref(JOB, "demo-tokenization-1-1")
WARNING = "24 rows have reasoning_content, which the chat template does not render"


def tokenized(world: World, outputs: TokenizationOutputs = FEW, warnings: tuple[str, ...] = (WARNING,)) -> World:
    """A world that has come to the end of its tokenization."""
    while TOKENIZATION not in world.objects:
        go(world)
        for ref in world.active():
            if ref != TOKENIZATION:
                world.finish(ref)
    result = Result(
        "tokenization", "1.1", world.inputs_digest(TOKENIZATION), "Succeeded", outputs=encode(outputs), warnings=warnings
    )
    world.finish(TOKENIZATION, message=termination_message(result))
    return world


def test_rows_that_are_left_out_are_counted_by_cause_and_shown() -> None:
    world = tokenized(World.new())
    go(world)
    status = run_of(world).status
    assert {name: status["rows"][name] for name in ("source", "trained", "tooLong", "nothingToLearn")} == {
        "source": 10, "trained": 2, "tooLong": 27, "nothingToLearn": 1,
    }  # fmt: skip
    assert status["summary"]["rows"] == "2 (28 left out)"


@pytest.mark.parametrize(
    ("rows", "short", "sentence"),
    [
        ({}, None, None),
        ({"source": 10, "bad": 1}, None, "1 row is left out: 1 is bad"),
        ({"trained": 9, "bad": 0, "tooLong": 0}, "9", None),
        (
            {"trained": 9, "rejected": 1000},
            "9 (1000 left out)",
            "1,000 rows are left out: 1,000 are rejected by the chat template",
        ),
        (
            {"trained": 9, "bad": 2, "rejected": 1, "tooLong": 1, "nothingToLearn": 2},
            "9 (6 left out)",
            (
                "6 rows are left out: 2 are bad, 1 is rejected by the chat template, 1 is longer than training.maxSeqLen or the"
                " model's context, 2 have no token to learn"
            ),
        ),
    ],
)
def test_the_sentence_about_rows(rows: dict[str, int], short: str | None, sentence: str | None) -> None:
    assert (rows_summary(rows), left_out(rows)) == (short, sentence)


def test_a_warning_is_in_status_in_an_event_and_in_the_message() -> None:
    world = tokenized(World.new())
    decision = go(world)
    assert decision.status["warnings"] == [{"stage": "tokenization", "message": WARNING}]
    assert [(event.type, event.message) for event in decision.events if event.reason == "StageWarning"] == [
        ("Warning", f"tokenization: {WARNING}")
    ]
    world.settle()
    assert run_of(world).status["summary"]["message"] == f"tokenization: {WARNING}"


def test_several_warnings_are_counted_in_the_message_and_bounded_in_status() -> None:
    world = tokenized(World.new(), warnings=tuple(f"warning {number}" for number in range(8)))
    world.settle()
    assert run_of(world).status["summary"]["message"] == "tokenization: warning 0 (and 7 more warnings)"
    world = tokenized(World.new(), warnings=("warning 0", "warning 1"))
    world.settle()
    assert run_of(world).status["summary"]["message"] == "tokenization: warning 0 (and 1 more warning)"
    known = [{"stage": "model", "message": f"{number}"} for number in range(12)]
    world = tokenized(World.new(), warnings=("new", "newer"))
    world.write_status({**world.run["status"], "warnings": known})
    go(world)
    assert [one["message"] for one in run_of(world).status["warnings"]] == [*map(str, range(12)), "new", "newer"]
    world = tokenized(World.new(), warnings=tuple(f"new {number}" for number in range(8)))
    world.write_status({**world.run["status"], "warnings": known})
    go(world)
    first, *others = (one["message"] for one in run_of(world).status["warnings"])
    assert first == "Earlier warnings are left out here; see the logs of the stages."
    assert others == [*map(str, range(5, 12)), *(f"new {number}" for number in range(8))]


def test_a_run_without_warnings_reports_the_rows_that_are_left_out() -> None:
    world = tokenized(World.new(), warnings=())
    world.settle()
    assert "warnings" not in run_of(world).status
    assert run_of(world).status["summary"]["message"] == (
        "28 rows are left out: 27 are longer than training.maxSeqLen or the model's context, 1 has no token to learn"
    )


@pytest.mark.parametrize(
    ("first", "rows", "warned"), [("registration", FEW.rows, True), ("training", None, False), ("dataset", None, False)]
)
def test_a_rerun_forgets_what_its_stages_counted(first: str, rows: int | None, warned: bool) -> None:
    world = tokenized(World.new())
    world.settle()
    edit(world, rerun={"id": "second", "from": first})
    status: dict[str, Any] = go(world).status
    assert (status.get("rows") or {}).get("trained") == rows
    assert bool(status.get("warnings")) is warned
    assert ("source" in (status.get("rows") or {})) is (first != "dataset")


def test_rows_without_a_token_to_learn_are_no_proof() -> None:
    world = tokenized(World.new(), replace(FEW, learned_tokens=0))
    go(world)
    assert stage(world, "tokenization").reason == "ProofMissing"


@pytest.mark.parametrize(
    ("evaluation", "gate", "required"),
    [
        ({"tasks": ["arc_easy"]}, None, False),
        ({"tasks": []}, None, True),
        ({"tasks": ["arc_easy"]}, {"requirements": [{"metric": "holdout.loss", "max": 1}]}, True),
        ({"tasks": [], "enabled": False}, None, False),
    ],
)
def test_held_out_rows_are_required_if_nothing_else_is_measured(
    evaluation: dict[str, Any], gate: dict[str, Any] | None, required: bool
) -> None:
    world = World.new({**MINIMAL, "evaluation": evaluation, **({"gate": gate} if gate else {})})
    go(world)
    inputs: Any = GRAPH.programs["tokenization"].inputs(run_of(world))
    assert encode(inputs)["requiresHoldout"] is required
