"""How long no pass can change anything about a run, derived from the run alone."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from finetune_operator.api.stages import RERUN_TARGETS
from finetune_operator.core.ended_run import cleanup_in, idle_seconds
from finetune_operator.core.observation import Observed
from finetune_operator.core.plan import plan
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.core.times import LONGEST, duration, stamp
from reruns import CHANGES
from unit.core.passes import decide, edit, go, run_of, world_at
from world import MINIMAL, NOW, World


def ended(ttl: str = "1h") -> World:
    """A run that has succeeded, and of which everything was seen."""
    world = World.new({**MINIMAL, "cleanup": {"ttlAfterFinished": ttl}})
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    return world


def test_there_is_a_change_for_every_rerun() -> None:
    assert tuple(CHANGES) == RERUN_TARGETS


@pytest.mark.parametrize("changed", [False, True], ids=["plain", "changed"])
@pytest.mark.parametrize("stage", CHANGES)
def test_a_rerun_is_no_rest_and_needs_neither_settings_nor_the_cluster(stage: str, changed: bool) -> None:
    world = ended()
    assert idle_seconds(run_of(world), NOW) == 3600
    edit(world, rerun={"id": "again", "from": stage}, **(CHANGES[stage] if changed else {}))
    assert idle_seconds(run_of(world), NOW) == 0
    assert go(world).status["round"] == 2
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert idle_seconds(run_of(world), NOW) == 3600


def test_the_plan_agrees_on_the_rest_of_a_run() -> None:
    world = ended()
    for at in (NOW, NOW + timedelta(minutes=59)):
        decision = decide(world, at)
        assert (decision.status, decision.effects) == (run_of(world).status, ())
        assert decision.requeue_after == idle_seconds(run_of(world), at)
    assert idle_seconds(run_of(world), NOW + timedelta(hours=1)) == 0
    go(world, NOW + timedelta(hours=1))
    assert idle_seconds(run_of(world), NOW + timedelta(hours=2)) == math.inf


def test_a_run_in_progress_is_never_idle_and_a_deleted_one_always() -> None:
    world = world_at("training")
    assert idle_seconds(run_of(world), NOW) == 0
    world.run = {**world.run, "metadata": {**world.run["metadata"], "deletionTimestamp": stamp(NOW)}}
    assert idle_seconds(run_of(world), NOW) == math.inf


def test_an_edit_that_changes_nothing_is_seen_before_the_run_rests_again() -> None:
    world = ended()
    edit(world, retry={"transient": 1})
    assert idle_seconds(run_of(world), NOW) == 0
    go(world)
    assert idle_seconds(run_of(world), NOW) == 3600


def test_a_rejected_run_is_idle_until_its_next_edit() -> None:
    world = World.new({**MINIMAL, "publish": {"uri": "s3://b/x"}})
    go(world)
    assert idle_seconds(run_of(world), NOW) == math.inf
    edit(world)
    assert idle_seconds(run_of(world), NOW) == 0


def test_a_rejected_rerun_rests_until_the_next_edit() -> None:
    world = ended()
    edit(world, rerun={"id": "2", "from": "model"}, publish={"uri": "s3://b/x"})
    assert idle_seconds(run_of(world), NOW) == 0
    go(world)
    assert idle_seconds(run_of(world), NOW) == 3600


def test_nothing_is_cleaned_up_twice_or_of_a_run_that_never_started() -> None:
    world = World.new({"dataset": {"uri": "d"}, "cleanup": {"ttlAfterFinished": "0s"}, "evaluation": {"tasks": []}})
    assert cleanup_in(run_of(world), NOW) is None
    world.settle()
    run = Run.parse({**world.run, "status": {key: value for key, value in world.run["status"].items() if key != "cleanedAt"}})
    assert cleanup_in(run, NOW) == 0
    assert cleanup_in(Run.parse({**world.run, "status": {**run.status, "cleanedAt": stamp(NOW)}}), NOW) is None
    assert cleanup_in(Run.parse({**world.run, "status": {"finishedAt": stamp(NOW)}}), NOW) is None


@pytest.mark.parametrize("text", ["99999999999999h", "9" * 31 + "h", "9" * 400 + "h", "9" * 5000 + "ms"])
def test_no_duration_is_too_long_for_a_date(text: str) -> None:
    """Objects that an earlier release accepted are still there."""
    assert duration(text) == LONGEST
    world = ended()
    world.run["spec"] = {**world.run["spec"], "cleanup": {"ttlAfterFinished": text}}
    assert idle_seconds(run_of(world), NOW) == LONGEST.total_seconds()
    decision = plan(run_of(world), Observed(Settings("cluster", "", {}, "")), NOW)
    assert decision.requeue_after == LONGEST.total_seconds()
