"""Condition of a run for which the operator raises an exception, and its end."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api.reasons import INTERNAL_ERROR
from finetune_operator.core.ended_run import idle_seconds, observed_status
from finetune_operator.core.internal_error import hold_internal_error
from finetune_operator.core.run import Run
from world import NOW, World

LATER = NOW + timedelta(minutes=5)


def condition(status: Any, type_: str) -> tuple[str, str]:
    found = next(one for one in status["conditions"] if one["type"] == type_)
    return found["status"], found["reason"]


def hold(world: World) -> Any:
    decision = hold_internal_error(Run.parse(world.run), "KeyError", LATER)
    world.write_status(decision.status)
    return decision


def test_a_run_in_progress_is_stalled_until_a_pass_succeeds() -> None:
    world = World.new()
    world.turn()
    before = world.run["status"]
    decision = hold(world)
    assert decision.effects == ()
    assert condition(decision.status, "Stalled") == ("True", "InternalError")
    assert condition(decision.status, "Reconciling") == ("False", "InternalError")
    stalled = next(one for one in decision.status["conditions"] if one["type"] == "Stalled")
    assert stalled["message"] == f"The operator raised KeyError in its own program. {INTERNAL_ERROR.remedy}"
    assert stalled["lastTransitionTime"] == "2026-11-21T12:05:00Z"
    assert [one["type"] for one in decision.status["conditions"]] == [one["type"] for one in before["conditions"]]
    assert decision.status["summary"]["message"].startswith("InternalError: The operator raised KeyError")
    assert [(event.type, event.reason) for event in decision.events] == [("Warning", "InternalError")]
    again = hold_internal_error(Run.parse(world.run), "KeyError", LATER + timedelta(minutes=5))
    assert (again.status, again.events) == (decision.status, ()), "the next failure writes nothing"
    world.turn()
    assert condition(world.run["status"], "Stalled")[0] == "False"
    assert condition(world.run["status"], "Reconciling") == ("True", "Running")
    world.settle()
    assert world.run["status"]["phase"] == "Succeeded"


def test_a_run_without_a_status_gets_the_condition_too() -> None:
    world = World.new()
    status = hold(world).status
    assert [one["type"] for one in status["conditions"]] == ["Reconciling", "Stalled"]
    assert (status["phase"], status["observedGeneration"]) == ("Pending", 1)


def test_a_run_that_is_being_deleted_stays_as_it_is() -> None:
    run = replace(Run.parse(World.new().run), deleting=True)
    assert hold_internal_error(run, "KeyError", NOW).status == {}


def ended(spec: dict[str, Any] | None = None, bits: float = 2.0) -> World:
    world = World.new(spec)
    world.scores["evaluation"] = bits
    world.settle()
    return world


GATE = {
    "dataset": {"uri": "/d.jsonl"},
    "evaluation": {"tasks": [], "baseline": True},
    "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}]},
}


@pytest.mark.parametrize(("spec", "phase"), [(None, "Succeeded"), (GATE, "Rejected")])
def test_an_ended_run_keeps_its_results_and_its_conditions_come_back(spec: dict[str, Any] | None, phase: str) -> None:
    world = ended(spec)
    before = world.run["status"]
    assert before["phase"] == phase
    status = hold(world).status
    assert condition(status, "Stalled") == ("True", "InternalError")
    assert {key: value for key, value in status.items() if key != "conditions"} == {
        key: value for key, value in before.items() if key != "conditions"
    }
    assert idle_seconds(Run.parse(world.run), LATER) == 0.0, "the run needs a pass"
    restored = observed_status(Run.parse(world.run))
    assert [(one["type"], one["status"], one["reason"], one["message"]) for one in restored["conditions"]] == [
        (one["type"], one["status"], one["reason"], one["message"]) for one in before["conditions"]
    ]
    world.turn()
    assert world.run["status"] == restored
    assert 0.0 < idle_seconds(Run.parse(world.run), NOW) <= math.inf


def test_a_rejected_spec_whose_edit_raises_is_planned_again() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "limits": {"total": "1h"}})
    world.turn()
    assert Run.parse(world.run).ended
    assert not Run.parse(world.run).started
    hold(world)
    world.turn()
    assert condition(world.run["status"], "Stalled") == ("True", "Unsupported")
    hold(world)
    world.run = {**world.run, "metadata": {**world.run["metadata"], "generation": 2}, "spec": {"dataset": {"uri": "/d.jsonl"}}}
    hold(world)
    world.turn()
    assert Run.parse(world.run).started
    assert condition(world.run["status"], "Stalled")[0] == "False"
