"""State transitions of a run that is controlled, rejected, upgraded or cleaned up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.result import LossPoint, Result, termination_message
from finetune_operator.api.kinds import CONFIGMAP, JOB
from finetune_operator.core.decision import Delete, Patch
from finetune_operator.core.observation import Observed, Ref, Rejection
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.reads import active_stages, needs
from finetune_operator.core.times import stamp
from unit.core.passes import child, condition, decide, edit, failing, fault, go, run_of, stage, world_at
from world import MINIMAL, NOW, OUTPUTS, SETTINGS, World

# -- control -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_made_suspended_does_not_start() -> None:
    world = World.new({**MINIMAL, "suspend": True})
    decision = go(world)
    assert not decision.effects
    assert decision.status["phase"] == "Suspended"
    assert "startedAt" not in decision.status
    edit(world, suspend=False)
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_rerun_of_a_suspended_run_prepares_its_workspace_after_it_is_resumed() -> None:
    world = World.new(MINIMAL)
    world.settle()
    edit(world, suspend=True, rerun={"id": "again", "from": "dataset"})
    for _ in range(2):
        assert not go(world).effects
        assert (stage(world, "workspace").state, stage(world, "workspace").reason) == ("Pending", None)
    edit(world, suspend=False)
    world.settle()
    assert (run_of(world).status["round"], run_of(world).status["phase"]) == (2, "Succeeded")


def suspension(ref: Ref, *, suspend: bool) -> Patch:
    """The operator suspends a child, or resumes what it suspended itself."""
    annotations = {"finetunerun.io/suspended-by": "finetune-operator" if suspend else None}
    return Patch(ref, {"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}})


def test_a_suspended_run_suspends_its_child_and_continues_with_the_same() -> None:
    world = world_at("training")
    ref = child(world, "training")
    edit(world, suspend=True)
    decision = go(world)
    assert next(effect for effect in decision.effects if isinstance(effect, Patch)) == suspension(ref, suspend=True)
    assert condition(decision.status, "Suspended") == ("True", "Suspended")
    assert condition(decision.status, "Reconciling") == ("True", "Suspending")
    for _ in range(3):
        go(world)
    assert stage(world, "training").reason == "Suspended"
    assert condition(run_of(world).status, "Reconciling") == ("False", "Suspended")
    edit(world, suspend=False)
    assert suspension(ref, suspend=False) in go(world).effects
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


@pytest.mark.parametrize("reason", ["Succeeded", "Failed"])
def test_a_rerun_that_cannot_be_resolved_is_rejected_and_the_run_keeps_its_end(reason: str) -> None:
    world = World.new() if reason == "Succeeded" else world_at("dataset")
    if reason == "Failed":
        go(world, **failing(world, "dataset", Termination(65, "Error", fault("DatasetEmpty"))))
    world.settle()
    before = run_of(world).status
    assert before["phase"] == reason
    edit(world, rerun={"id": "2", "from": "dataset"}, publish={"uri": "s3://b/x"})
    decision = go(world)
    assert not decision.effects
    assert without_conditions(decision.status) == without_conditions(before)
    assert decision.status["conditions"][:-1] == [{**one, "observedGeneration": 2} for one in before["conditions"]]
    rejected = decision.status["conditions"][-1]
    assert (rejected["type"], rejected["status"], rejected["reason"]) == ("RerunRejected", "True", "Unsupported")
    assert rejected["message"] == (
        "rerun 2: it cannot start, and the run keeps its results: spec.publish: this release does not support this field; remove it."
    )
    assert [(event.type, event.reason, event.message) for event in decision.events] == [
        ("Warning", "Unsupported", rejected["message"])
    ]
    again = decide(world)
    assert (again.status, again.events) == (decision.status, ())


def without_conditions(status: Any) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key not in ("conditions", "observedGeneration")}


def test_the_next_edit_clears_a_rejection_and_a_corrected_rerun_starts_under_its_id() -> None:
    world = World.new()
    world.settle()
    edit(world, rerun={"id": "2", "from": "dataset"}, publish={"uri": "s3://b/x"})
    go(world)
    edit(world, rerun={"id": "2", "from": "model"})
    since = stamp(NOW + timedelta(minutes=5))
    rejected = go(world, NOW + timedelta(minutes=5)).status["conditions"][-1]
    assert rejected["observedGeneration"] == 3
    assert rejected["lastTransitionTime"] == stamp(NOW) != since
    world.run["spec"].pop("publish")
    edit(world)
    assert go(world).status["round"] == 2
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert "RerunRejected" not in {one["type"] for one in run_of(world).status["conditions"]}
    edit(world, rerun={"id": "3", "from": "dataset"}, publish={"uri": "s3://b/x"})
    go(world)
    edit(world, rerun={"id": "2", "from": "model"})
    assert "RerunRejected" not in {one["type"] for one in go(world).status["conditions"]}
    assert run_of(world).round == 2


# -- rejection, upgrade, clean-up --------------------------------------------------------------------------------------


def test_a_rejected_run_reports_why_and_is_planned_again_when_it_is_edited() -> None:
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


@pytest.mark.parametrize(("state", "held"), [("Pending", True), ("Running", True), ("Succeeded", False)])
def test_a_run_with_a_stage_of_another_release_is_held_until_that_stage_has_ended(state: str, held: bool) -> None:
    world = world_at("registration")
    status = run_of(world).status
    world.write_status({**status, "stages": [*status["stages"], {"name": "approval", "state": state}]})
    decision = decide(world)
    if held:
        assert condition(decision.status, "Stalled") == ("True", "ContractUnknown")
        assert decision.status["summary"]["message"].endswith("this release does not know stage approval")
        assert not decision.effects
    else:
        assert condition(decision.status, "Stalled")[0] == "False"


def test_a_rerun_removes_what_its_stages_wrote() -> None:
    world = world_at("training", {**MINIMAL, "training": {"algorithm": "lora"}})
    outputs = {**encode(OUTPUTS["training"]), "adapterDigest": "a" * 64}
    digest = run_of(world).stages["training"].inputs_digest or ""
    history = (LossPoint(1, 2.0), LossPoint(2, 1.0))
    result = Result("training", "1.1", digest, "Succeeded", outputs=outputs, history=history)
    world.finish(child(world, "training"), message=termination_message(result))
    world.settle()
    status = run_of(world).status
    assert (len(status["history"]), "adapterUri" in status["model"], "registry" in status) == (2, True, True)
    edit(world, rerun={"id": "2", "from": "training"}, training={"algorithm": "sft"})
    go(world)
    status = run_of(world).status
    assert not {"history", "registry"} & status.keys()
    assert set(status["model"]) == {"baseDigest", "parameters"}
    assert set(status["rows"]) == {"source", "bad"}


def test_a_rejected_suspension_is_reported() -> None:
    world = world_at("training")
    edit(world, suspend=True)
    go(world)
    ref = child(world, "training")
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": False}}
    decision = decide(world, rejected={ref: Rejection("may not patch trainjobs", forbidden=True)})
    assert condition(decision.status, "Stalled")[0] == "True"
    assert "may not patch trainjobs" in decision.status["summary"]["message"]
    assert suspension(ref, suspend=True) in decision.effects


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
    assert decision.requeue_after == 60.0
    late = NOW + timedelta(hours=1)
    leftovers = {Ref(JOB, "demo-dataset-1-1"): "j", Ref(CONFIGMAP, "demo-inputs-1"): "c"}
    decision = decide(world, late, leftovers=leftovers)
    assert decision.effects == tuple(Delete(ref, uid) for ref, uid in leftovers.items())
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


@pytest.mark.parametrize("name", ["dataset", "training"])
def test_a_child_that_another_client_suspended_is_reported_and_not_resumed(name: str) -> None:
    """It may be a queue's suspension: to resume it would go round the queue."""
    world = world_at(name)
    ref = child(world, name)
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": True}}
    for pods in ({name: (PodReport("p", phase="Running"),)}, {}):
        decision = go(world, pods=pods)
        assert not decision.effects
        assert condition(decision.status, "Stalled") == ("True", "ChildSuspended")
    stalled = next(one for one in decision.status["conditions"] if one["type"] == "Stalled")
    assert stalled["message"].startswith(f"{ref.kind.name} {ref.name}: spec.suspend is true, and this operator did not set it.")
    assert decide(world, pods=pods).status == decision.status
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": False}}
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert stage(world, name).attempt == 1


def test_a_suspension_of_another_controller_is_neither_adopted_nor_undone() -> None:
    """It may be a queue's: to resume the child with the run would go round the queue."""
    world = world_at("training")
    ref = child(world, "training")
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": True}}
    edit(world, suspend=True)
    assert ref not in {effect.ref for effect in go(world, pods={}).effects}
    assert stage(world, "training").reason == "Suspended"
    edit(world, suspend=False)
    decision = go(world, pods={})
    assert ref not in {effect.ref for effect in decision.effects}
    assert condition(decision.status, "Stalled") == ("True", "ChildSuspended")
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": False}}
    edit(world, suspend=True)
    assert suspension(ref, suspend=True) in go(world).effects, "the other controller resumed it, and the run is suspended"


def test_nothing_is_read_of_a_run_that_has_ended() -> None:
    world = World.new()
    assert [ref.name for ref in needs(run_of(world), SETTINGS)] == [
        "finetune-stage",
        f"finetune-training-bundle-{SETTINGS.bundle_digest[:16]}",
    ]
    go(world)
    assert len(needs(run_of(world), SETTINGS)) == 3
    world.settle()
    assert needs(run_of(world), SETTINGS) == ()
    assert active_stages(run_of(world)) == ()
