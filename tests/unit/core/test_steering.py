"""State transitions of a run that is steered, refused, upgraded or cleaned up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_operator.api.kinds import CONFIGMAP, JOB
from finetune_operator.core.decision import Delete, Patch
from finetune_operator.core.observation import Observed, Ref, active_stages, needs
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.times import stamp
from unit.core.passes import child, condition, decide, edit, failing, fault, go, run_of, stage, world_at
from world import MINIMAL, NOW, SETTINGS, World

# -- steering ----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_made_suspended_does_not_start() -> None:
    world = World.new({**MINIMAL, "suspend": True})
    decision = go(world)
    assert not decision.effects
    assert decision.status["phase"] == "Suspended"
    assert "startedAt" not in decision.status
    edit(world, suspend=False)
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_suspended_run_holds_its_child_and_goes_on_with_the_same() -> None:
    world = world_at("training")
    ref = child(world, "training")
    edit(world, suspend=True)
    decision = go(world)
    assert next(effect for effect in decision.effects if isinstance(effect, Patch)) == Patch(ref, {"spec": {"suspend": True}})
    assert condition(decision.status, "Suspended") == ("True", "Suspended")
    assert condition(decision.status, "Reconciling") == ("True", "Suspending")
    for _ in range(3):
        go(world)
    assert stage(world, "training").reason == "Suspended"
    assert condition(run_of(world).status, "Reconciling") == ("False", "Suspended")
    edit(world, suspend=False)
    assert Patch(ref, {"spec": {"suspend": False}}) in go(world).effects
    world.settle()
    assert stage(world, "training").attempt == 1
    assert run_of(world).status["phase"] == "Succeeded"


def test_pods_that_do_not_stop_are_deleted_and_the_next_attempt_waits_for_the_user() -> None:
    world = world_at("training")
    ref = child(world, "training")
    edit(world, suspend=True)
    go(world)
    stubborn = {"training": (PodReport("p", phase="Running"),)}
    later = NOW + timedelta(seconds=121)
    decision = go(world, later, pods=stubborn)
    assert ref in [effect.ref for effect in decision.effects if isinstance(effect, Delete)]
    assert stage(world, "training").state == "Retrying"
    go(world, later)
    assert stage(world, "training").state == "Retrying"
    edit(world, suspend=False)
    go(world, later)
    assert stage(world, "training").attempt == 2
    assert stage(world, "training").failures == {}


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("dataset", {"dataset", "tokenization", "training", "baseline", "evaluation", "registration"}),
        ("model", {"model", "tokenization", "training", "baseline", "evaluation", "registration"}),
        ("training", {"tokenization", "training", "evaluation", "registration"}),
        ("evaluation", {"tokenization", "baseline", "evaluation", "registration"}),
        ("registration", {"registration"}),
    ],
)
def test_a_rerun_does_its_stage_and_all_that_depend_on_it_again(first: str, again: set[str]) -> None:
    world = World.new()
    world.settle()
    edit(world, rerun={"id": "second", "from": first})
    decision = go(world)
    assert decision.status["round"] == 2
    assert "finishedAt" not in decision.status
    world.settle()
    run = run_of(world)
    assert run.status["phase"] == "Succeeded"
    assert {name for name, record in run.stages.items() if record.round == 2 and record.state != "Skipped"} == again | {
        "workspace"
    }
    assert run.status["rerunId"] == "second"


def test_the_same_rerun_is_done_once() -> None:
    world = World.new()
    world.settle()
    edit(world, rerun={"id": "second", "from": "registration"})
    world.settle()
    decision = decide(world)
    assert decision.status == run_of(world).status
    assert run_of(world).round == 2


def test_a_rerun_of_a_failed_run_forgets_the_failure() -> None:
    world = world_at("dataset")
    go(world, **failing(world, "dataset", Termination(65, "Error", fault("DatasetEmpty"))))
    go(world)
    assert run_of(world).status["phase"] == "Failed"
    edit(world, rerun={"id": "2", "from": "dataset"})
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert "failure" not in run_of(world).status


def test_a_rerun_that_cannot_be_resolved_is_refused_and_the_run_stays_ended() -> None:
    world = World.new()
    world.settle()
    edit(world, rerun={"id": "2", "from": "dataset"}, publish={"uri": "s3://b/x"})
    decision = go(world)
    assert decision.status["failure"]["reason"] == "Unsupported"
    assert decision.status["finishedAt"]
    assert decide(world).status == decision.status


# -- refusal, upgrade, clean-up ----------------------------------------------------------------------------------------


def test_a_refused_run_says_why_and_looks_again_when_it_is_edited() -> None:
    world = World.new({**MINIMAL, "gate": {"approval": {"required": True}}})
    decision = go(world)
    assert not decision.effects
    assert decision.status["phase"] == "Failed"
    assert condition(decision.status, "Succeeded") == ("False", "Unsupported")
    assert "startedAt" not in decision.status
    assert decide(world).status == decision.status
    spec = {key: value for key, value in world.run["spec"].items() if key != "gate"}
    world.run = {**world.run, "spec": spec, "metadata": {**world.run["metadata"], "generation": 2}}
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_run_of_an_unknown_contract_is_held_and_never_rewritten() -> None:
    world = world_at("training")
    status = run_of(world).status
    world.write_status({**status, "resolved": {**status["resolved"], "contractVersion": 99}})
    decision = decide(world)
    assert not decision.effects
    assert condition(decision.status, "Stalled") == ("True", "ContractUnknown")
    assert decision.status["stages"] == status["stages"]


def test_a_run_that_is_deleted_is_left_to_the_garbage_collector() -> None:
    world = world_at("training")
    world.run = {**world.run, "metadata": {**world.run["metadata"], "deletionTimestamp": stamp(NOW)}}
    decision = decide(world)
    assert (decision.status, decision.effects) == (run_of(world).status, ())


def test_finished_children_are_kept_for_their_time_and_then_removed() -> None:
    world = World.new({**MINIMAL, "cleanup": {"ttlAfterFinished": "1h"}})
    world.settle()
    decision = decide(world, NOW + timedelta(minutes=59))
    assert not decision.effects
    assert decision.again_in == 60.0
    late = NOW + timedelta(hours=1)
    leftovers = (Ref(JOB, "demo-dataset-1-1"), Ref(CONFIGMAP, "demo-inputs-1"))
    decision = decide(world, late, leftovers=leftovers)
    assert [effect.ref for effect in decision.effects] == list(leftovers)
    decision = go(world, late)
    assert decision.status["cleanedAt"] == stamp(late)
    assert decide(world, late).status == decision.status


def test_the_usage_counts_gpu_seconds_of_training() -> None:
    place = replace(SETTINGS, machine=None, mode="cluster")
    world = World.new({"dataset": {"uri": "org/data"}, "training": {"workers": 2, "gpusPerWorker": 4}})
    world.write_status(plan(run_of(world), Observed(place), NOW).status)
    world.settle()
    assert run_of(world).status["usage"] == {"gpuSeconds": 0.0, "wallSeconds": 0.0}


def test_an_intent_that_is_held_is_not_carried_out() -> None:
    world = World.new()
    go(world)
    go(world)
    world.remove(Ref(JOB, "demo-dataset-1-1"))
    edit(world, suspend=True)
    assert Ref(JOB, "demo-dataset-1-1") not in [effect.ref for effect in go(world).effects]


def test_a_child_that_is_held_before_the_run_says_so_is_left_alone() -> None:
    world = world_at("training")
    ref = child(world, "training")
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": True}}
    decision = decide(world, pods={"training": (PodReport("p", phase="Running"),)})
    assert Patch(ref, {"spec": {"suspend": False}}) in decision.effects


def test_nothing_is_read_of_a_run_that_has_ended() -> None:
    world = World.new()
    assert [ref.name for ref in needs(run_of(world), SETTINGS)] == [
        "finetune-stage",
        f"finetune-entry-{SETTINGS.entry_digest[:16]}",
    ]
    go(world)
    assert len(needs(run_of(world), SETTINGS)) == 3
    world.settle()
    assert needs(run_of(world), SETTINGS) == ()
    assert active_stages(run_of(world)) == ()
