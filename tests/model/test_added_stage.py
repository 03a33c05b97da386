"""A stage is one declaration: one that waits for a person is added here, and nothing else is changed.

Plan, conditions, phase, Events, kstatus and the exhaustive search carry it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.api.stages import StageDefinition
from finetune_operator.cli.stages_view import stage_lines
from finetune_operator.core import stages, unsupported
from finetune_operator.core.events import lasting_events
from finetune_operator.core.run import Run
from finetune_operator.core.stages import OperatorStage, Outcome, StageGraph
from kstatus import kstatus
from unit.core.passes import condition, edit, go, run_of
from world import MINIMAL, World

from .test_exhaustive import Budget, Step, edited, explore


class ReviewStage(OperatorStage):
    """Wait until ``spec.approval`` has a decision about this round."""

    definition = StageDefinition(
        name="review", depends_on=("gate",), precedes=("registration",),
        reruns=("dataset", "model", "training", "evaluation", "gate"), rerun_from="gate",
        condition="Reviewed", phase="AwaitingReview", model_rejection="ReviewRejected", announced=True,
    )  # fmt: skip

    def evaluate(self, run: Run) -> Outcome:
        approval, subject = run.spec.get("approval") or {}, f"round-{run.round}"
        if approval.get("of") != subject:
            return Outcome("Running", "AwaitingReview", f"spec.approval: no decision about {subject}; add one")
        if approval["decision"] == "Approved":
            return Outcome("Succeeded", "Approved", f"approved by {approval['by']}")
        return Outcome("Failed", "ReviewRejected", f"rejected by {approval['by']}")


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage is before the registration, and the field that it reads is supported."""
    before, last = stages.GRAPH.stages[:-1], stages.GRAPH.stages[-1]
    monkeypatch.setattr(stages, "GRAPH", StageGraph((*before, ReviewStage(), last)))
    monkeypatch.setattr(
        unsupported, "UNSUPPORTED_VALUES", tuple(one for one in unsupported.UNSUPPORTED_VALUES if one.path != "approval")
    )


def approval(run: Run, decision: str) -> dict[str, str]:
    return {"decision": decision, "of": f"round-{run.round}", "by": "ann"}


def reviewer(world: World, budget: Budget) -> Iterator[Step]:
    """The person decides once the stage waits, one way or the other."""
    run = Run.parse(world.run)
    review = run.stages.get("review")
    if review is None or review.state != "Running" or (run.spec.get("approval") or {}).get("of") == f"round-{run.round}":
        return
    for decision in ("Approved", "Rejected"):
        after = world.copy()
        after.run = edited(world.run, {**run.spec, "approval": approval(run, decision)})
        yield Step(f"a person writes {decision}", after, budget)


def reviewing() -> World:
    """A run whose stages have all ended but for the review, for which it waits, and the registration."""
    world = World.new()
    world.settle()
    return world


def states(world: World) -> dict[str, str]:
    return {name: stage_status.state for name, stage_status in run_of(world).stages.items()}


def decide(world: World, decision: str) -> list[tuple[str, str]]:
    """The person decides, and the run continues to its end. Return the Events."""
    edit(world, approval=approval(run_of(world), decision))
    events = []
    for _ in range(6):
        events += [(event.reason, event.message) for event in go(world).events if event.posted]
        for ref in world.active():
            world.finish(ref)
    return events


def test_the_run_waits_for_the_person() -> None:
    world = reviewing()
    assert list(states(world))[-3:] == ["gate", "review", "registration"]
    assert (states(world)["evaluation"], states(world)["review"], states(world)["registration"]) == (
        "Succeeded",
        "Running",
        "Pending",
    )
    status = run_of(world).status
    assert (status["phase"], status["summary"]["message"]) == ("AwaitingReview", "review")
    assert condition(status, "Reviewed") == ("Unknown", "AwaitingReview")
    assert condition(status, "Registered") == ("Unknown", "Waiting")
    assert kstatus(world.run) == "InProgress"
    (line,) = (line for line in stage_lines(run_of(world)) if line.name == "review")
    assert (line.state, line.text) == ("Running", "spec.approval: no decision about round-1; add one")


def test_its_start_and_its_end_are_events_and_outlast_a_restart() -> None:
    world, events = World.new(), []
    for _ in range(14):
        events += [(event.reason, event.message) for event in go(world).events if event.posted]
        for ref in world.active():
            world.finish(ref)
    assert events[-1] == ("StageStarted", "review: spec.approval: no decision about round-1; add one")
    assert decide(world, "Approved")[:1] == [("StageSucceeded", "review: approved by ann")]
    assert "review: approved by ann" in {event.message for event, _ in lasting_events(run_of(world))}


def test_an_approved_model_is_registered() -> None:
    world = reviewing()
    decide(world, "Approved")
    status = run_of(world).status
    assert (status["phase"], states(world)["review"], states(world)["registration"]) == ("Succeeded", "Succeeded", "Succeeded")
    assert condition(status, "Reviewed") == ("True", "Approved")


def test_a_rejected_model_is_not_registered_and_the_run_has_not_failed() -> None:
    world = reviewing()
    assert decide(world, "Rejected") == [("ReviewRejected", "ReviewRejected: rejected by ann")]
    status = run_of(world).status
    assert (status["phase"], states(world)["review"], states(world)["registration"]) == ("Rejected", "Failed", "Skipped")
    assert "failure" not in status
    for type_, value in (("Succeeded", "False"), ("Reviewed", "False"), ("Registered", "False"), ("Stalled", "True")):
        assert condition(status, type_) == (value, "ReviewRejected")
    assert status["summary"]["message"] == "ReviewRejected: rejected by ann"


def test_a_suspended_run_does_not_read_the_decision() -> None:
    world = reviewing()
    edit(world, suspend=True)
    go(world)
    assert (run_of(world).status["phase"], kstatus(world.run)) == ("Suspended", "Current")
    decide(world, "Approved")
    assert states(world)["review"] == "Running"
    edit(world, suspend=False)
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


@pytest.mark.parametrize(("first", "state"), [("gate", "Running"), ("registration", "Succeeded")])
def test_a_rerun_repeats_it_as_declared(first: str, state: str) -> None:
    world = reviewing()
    decide(world, "Approved")
    edit(world, rerun={"id": "again", "from": first})
    world.settle()
    assert states(world)["review"] == state


GATE: dict[str, Any] = {"requirements": [{"metric": "holdout.bits_per_byte", "max": 3.0}]}


@pytest.mark.parametrize(
    ("spec", "budget"),
    [
        ({}, Budget(faults=1)),
        ({}, Budget(failures=1)),
        ({}, Budget(suspensions=1)),
        ({"gate": GATE}, Budget(faults=1, reruns=1)),
    ],
    ids=["a fault", "a failing child", "a suspension", "a rerun and a fault"],
)  # fmt: skip
def test_every_history_keeps_the_invariants_and_ends(spec: dict[str, Any], budget: Budget) -> None:
    found, broken, stuck = explore(World.new({**MINIMAL, **spec}), budget, reviewer)
    print(f"{found} states")
    assert not broken, broken[:3]
    assert not stuck, stuck[:3]


def test_the_search_finds_a_run_without_a_decision() -> None:
    _, broken, stuck = explore(World.new(), Budget())
    assert not broken, broken[:3]
    assert stuck
