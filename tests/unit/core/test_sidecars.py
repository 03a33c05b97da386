"""A stage ends with its own container; a child that a sidecar keeps alive is removed, whatever happens to the operator meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.core.decision import Delete
from finetune_operator.core.observation import Rejection
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.release import SIDECAR_SECONDS
from world import NOW, World

from .passes import child, decide, go, observed, run_of, stage, world_at

LATER = NOW + timedelta(seconds=SIDECAR_SECONDS)
REPLICAS = {"dataset": {"uri": "/d.jsonl"}, "training": {"workers": 2, "algorithm": "sft"}}


def pod(world: World, name: str, code: int = 0, **report: Any) -> PodReport:
    """The pod of a stage whose container has ended, and whose sidecar runs."""
    message = world.success_message(child(world, name)) if code == 0 else ""
    changes = {"phase": "Running", "termination": Termination(code, "", message), "sidecar_runs": True, **report}
    return PodReport(f"{child(world, name).name}-0", **changes)


def seen(world: World, name: str, *pods: PodReport) -> dict[str, Any]:
    return {"pods": {**observed(world).pods, name: pods}}


def test_a_stage_ends_with_its_container_and_its_child_goes_when_the_sidecar_had_its_time() -> None:
    world = world_at("dataset")
    ref, uid = child(world, "dataset"), stage(world, "dataset").child_uid
    decision = go(world, **seen(world, "dataset", pod(world, "dataset")))
    assert (stage(world, "dataset").state, stage(world, "dataset").releasing) == ("Succeeded", True)
    assert Delete(ref, uid) not in decision.effects
    waiting = decide(world, **seen(world, "dataset", pod(world, "dataset")))
    assert Delete(ref, uid) not in waiting.effects
    assert waiting.requeue_after is not None
    assert waiting.requeue_after <= SIDECAR_SECONDS
    due = decide(world, LATER, **seen(world, "dataset", pod(world, "dataset")))
    assert Delete(ref, uid) in due.effects
    assert decide(world, LATER, **seen(world, "dataset", pod(world, "dataset"))).effects == due.effects, (
        "a lost call is made again"
    )
    denied = decide(
        world, LATER, **seen(world, "dataset", pod(world, "dataset")), rejected={ref: Rejection("may not", forbidden=True)}
    )
    assert denied.effects == due.effects
    assert "stage dataset: may not" in denied.status["summary"]["message"]
    del world.objects[ref]
    go(world, LATER)
    assert (stage(world, "dataset").state, stage(world, "dataset").releasing) == ("Succeeded", False)


@pytest.mark.parametrize("end", ["pods", "child", "deleting"])
def test_a_child_that_ends_by_itself_in_time_is_kept_for_its_logs(end: str) -> None:
    world = world_at("dataset")
    ref, report = child(world, "dataset"), pod(world, "dataset")
    go(world, **seen(world, "dataset", report))
    if end == "pods":
        report = pod(world, "dataset", sidecar_runs=False)
    elif end == "child":
        world.objects[ref] = {**world.objects[ref], "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    else:
        metadata = {**world.objects[ref]["metadata"], "deletionTimestamp": "2026-11-21T12:00:00Z"}
        world.objects[ref] = {**world.objects[ref], "metadata": metadata}
    decision = go(world, LATER, **seen(world, "dataset", report))
    assert not stage(world, "dataset").releasing
    assert not any(isinstance(effect, Delete) for effect in decision.effects)


def test_a_pod_without_sidecars_leaves_nothing_to_remove_even_before_its_phase_changes() -> None:
    world = world_at("dataset")
    go(world, **seen(world, "dataset", pod(world, "dataset", sidecar_runs=False)))
    assert (stage(world, "dataset").state, stage(world, "dataset").releasing) == ("Succeeded", False)
    assert "releasing" not in next(entry for entry in world.run["status"]["stages"] if entry["name"] == "dataset")["child"]


def test_the_run_ends_when_the_last_child_has_gone() -> None:
    world = world_at("registration")
    go(world, **seen(world, "registration", pod(world, "registration")))
    assert stage(world, "registration").state == "Succeeded"
    assert not run_of(world).ended
    go(world, LATER, **seen(world, "registration", pod(world, "registration")))
    go(world, LATER)
    assert run_of(world).ended
    assert world.run["status"]["phase"] == "Succeeded"


def test_a_stage_that_failed_is_no_success_and_its_child_goes_at_once() -> None:
    world = world_at("dataset", {"dataset": {"uri": "/d.jsonl"}, "retry": {"crash": 0}, "evaluation": {"tasks": []}})
    ref, uid = child(world, "dataset"), stage(world, "dataset").child_uid
    decision = decide(world, **seen(world, "dataset", pod(world, "dataset", 1)))
    assert Delete(ref, uid) in decision.effects
    world.write_status(decision.status)  # the operator dies before the call
    assert (stage(world, "dataset").state, stage(world, "dataset").releasing) == ("Failed", True)
    assert not run_of(world).ended
    go(world, **seen(world, "dataset", pod(world, "dataset", 1)))
    assert ref not in world.objects
    go(world)
    assert run_of(world).ended
    assert world.run["status"]["failure"]["reason"] == "Crashed"


def test_a_sidecar_that_fails_after_the_stage_has_succeeded_fails_nothing() -> None:
    world = world_at("dataset")
    ref = child(world, "dataset")
    world.objects[ref] = {**world.objects[ref], "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    go(world, **seen(world, "dataset", pod(world, "dataset", phase="Failed", sidecar_runs=False)))
    assert (stage(world, "dataset").state, stage(world, "dataset").attempt) == ("Succeeded", 1)


def test_every_rank_must_have_ended() -> None:
    world = world_at("training", REPLICAS)
    first = pod(world, "training")
    go(world, **seen(world, "training", first, PodReport("b", 1, "Running")))
    assert stage(world, "training").state == "Running"
    go(world, **seen(world, "training", first, PodReport("b", 1, "Running", Termination(0), sidecar_runs=True)))
    assert (stage(world, "training").state, stage(world, "training").releasing) == ("Succeeded", True)
