"""Events that can be derived from status after a restart: the same ones, and only those of the round."""

from __future__ import annotations

from finetune_operator.core.events import events, lasting_events
from finetune_operator.core.run import Run
from world import MINIMAL, World

from .passes import edit, go, run_of, world_at


def test_events_derived_from_status_are_those_that_were_posted() -> None:
    """An operator that starts finds the same Events in the status that the one before it posted: the same keys, words and times."""
    for world in (
        World.new(),
        World.new({**MINIMAL, "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}]}}),
    ):
        told = {}
        for _ in range(14):
            told |= {event.key: event for event in go(world).events if event.key and event.posted}
            for ref in world.active():
                world.finish(ref)
        found = dict(lasting_events(run_of(world)))
        assert {event.key: event for event in found} == told
        assert len(told) >= 6
        assert set(found.values()) == {world.run["status"]["finishedAt"]}


def test_the_ends_of_an_earlier_round_are_not_reported_again() -> None:
    world = World.new()
    world.settle()
    edit(world, rerun={"id": "second", "from": "registration"})
    for _ in range(8):
        go(world)
        for ref in world.active():
            world.finish(ref)
    assert [(event.stage, event.reason) for event, _ in lasting_events(run_of(world))] == [
        ("registration", "StageSucceeded"), (None, "RunSucceeded"),
    ]  # fmt: skip


def test_a_warning_of_a_stage_is_the_same_event_after_a_restart() -> None:
    world = world_at("training")
    before = run_of(world)
    warnings = [{"stage": "dataset", "message": "2 rows are empty"}, {"stage": "training", "message": "not this one: it goes on"}]
    world.write_status({**before.status, "warnings": warnings[:1]})
    after = run_of(world)
    (told,) = events(before.status, before.stages, after.status, after.stages)
    assert (told.reason, told.message) == ("StageWarning", "dataset: 2 rows are empty")
    world.write_status({**before.status, "warnings": warnings})
    assert [event for event, _ in lasting_events(run_of(world)) if event.reason == "StageWarning"] == [told]


def test_a_rejection_without_a_message_has_an_event() -> None:
    gate = {"name": "gate", "state": "Failed", "reason": "GateRejected"}
    run = Run("demo", "team", "u", 1, {}, {"finishedAt": "2026-11-21T12:00:00Z", "stages": [gate]})
    ((event, time),) = lasting_events(run)
    assert (event.reason, event.message, time) == ("GateRejected", "GateRejected: ", "2026-11-21T12:00:00Z")


def test_a_registered_model_without_version_is_shown_by_its_name() -> None:
    run = Run("demo", "team", "u", 1, {}, {"finishedAt": "2026-11-21T12:00:00Z", "registry": {"name": "model"}})
    assert [event.message for event, _ in lasting_events(run)] == ["model"]
