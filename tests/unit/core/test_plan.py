"""State transitions of a run: a status and an observation in, the next status and effects out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.progress import Progress, line
from finetune_contract.result import Result, parse_message, termination_message
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, JOB, TRAINJOB
from finetune_operator.core.decision import Create, Decision, Delete, Patch
from finetune_operator.core.observation import Observed, PodReport, Ref, Refused, Termination, active_stages, child_ref, needs
from finetune_operator.core.plan import plan
from finetune_operator.core.run import Run
from finetune_operator.core.times import stamp
from world import MINIMAL, NOW, OUTPUTS, SETTINGS, World


def run_of(world: World) -> Run:
    return Run.parse(world.run)


def observed(world: World, **changes: Any) -> Observed:
    run = run_of(world)
    found = {ref: world.objects[ref] for ref in needs(run) if ref in world.objects}
    pods = {
        record.name: world.pods_of(record.child_kind, record.child_name, record.name)
        for record in run.stages.values()
        if record.child_name and not record.ended
    }
    return replace(Observed(SETTINGS, found, {name: report for name, report in pods.items() if report}), **changes)


def decide(world: World, now: datetime = NOW, **changes: Any) -> Decision:
    return plan(run_of(world), observed(world, **changes), now)


def go(world: World, now: datetime = NOW, **changes: Any) -> Decision:
    """One whole pass of the loop."""
    decision = decide(world, now, **changes)
    world.write_status(decision.status)
    for effect in decision.effects:
        world.apply_effect(effect)
    return decision


def world_at(stage: str, spec: dict[str, Any] | None = None) -> World:
    """A run whose ``stage`` has a child that runs, and is known by its uid."""
    world = World.new(spec)
    for _ in range(12):
        go(world)
        record = run_of(world).stages[stage]
        if record.state == "Running" and record.child_uid:
            return world
        for ref in world.active():
            if world.stage_of(ref) != stage:
                world.finish(ref)
    raise AssertionError(f"stage {stage} never ran: {run_of(world).stages}")


def child(world: World, stage: str) -> Ref:
    return child_ref(run_of(world).stages[stage])


def stage(world: World, name: str) -> Any:
    return run_of(world).stages[name]


def condition(status: Any, type_: str) -> tuple[str, str]:
    found = {entry["type"]: (entry["status"], entry["reason"]) for entry in status["conditions"]}
    return found[type_]


def failing(world: World, name: str, termination: Termination | None = None, **report: Any) -> dict[str, Any]:
    """An observation in which the pod of a stage has failed."""
    pod = PodReport(f"{child(world, name).name}-0", phase="Failed", termination=termination, **report)
    return {"pods": {**observed(world).pods, name: (pod,)}}


# -- the way of a run that goes well -----------------------------------------------------------------------------------


def test_the_first_pass_resolves_the_run_and_makes_its_workspace() -> None:
    decision = decide(World.new())
    assert decision.status["startedAt"] == stamp(NOW)
    assert [effect.ref for effect in decision.effects] == [
        Ref(CONFIGMAP, "demo-inputs-1"), Ref(CONFIGMAP, "finetune-entry-" + "e" * 16),
    ]  # fmt: skip
    assert [event.reason for event in decision.events] == ["RunStarted"]


def test_every_condition_is_there_from_the_first_pass() -> None:
    status = decide(World.new()).status
    assert {entry["type"]: entry["status"] for entry in status["conditions"]} == {
        "Succeeded": "Unknown", "Finished": "False", "Reconciling": "True", "Stalled": "False", "Suspended": "False",
        "WorkspaceReady": "Unknown", "DatasetReady": "Unknown", "ModelReady": "Unknown", "Trained": "Unknown", "Evaluated": "Unknown",
        "GatePassed": "False", "Registered": "Unknown",
    }  # fmt: skip
    assert all(entry["observedGeneration"] == 1 and entry["reason"] for entry in status["conditions"])


def test_data_and_model_are_prepared_side_by_side() -> None:
    world = World.new()
    go(world)
    assert [effect.ref for effect in go(world).effects] == [Ref(JOB, "demo-dataset-1-1"), Ref(JOB, "demo-model-1-1")]


def test_training_waits_for_both() -> None:
    world = World.new()
    go(world)
    go(world)
    world.finish(Ref(JOB, "demo-model-1-1"))
    assert not go(world).effects
    world.finish(Ref(JOB, "demo-dataset-1-1"))
    assert [effect.ref for effect in go(world).effects] == [Ref(TRAINJOB, "demo-train-1-1")]


def test_the_baseline_begins_when_training_has_its_pods() -> None:
    world = World.new()
    go(world)
    go(world)
    for ref in world.active():
        world.finish(ref)
    go(world)
    assert stage(world, "training").state == "Running"
    waiting = {"training": (PodReport("demo-train-1-1-0", phase="Pending"),)}
    assert not go(world, pods=waiting).effects
    assert [effect.ref.name for effect in decide(world).effects] == ["demo-baseline-1-1"]


def test_a_run_ends_with_everything_that_people_ask_for() -> None:
    world = World.new()
    world.settle()
    status = run_of(world).status
    assert status["phase"] == "Succeeded"
    assert status["registry"]["version"] == "1.0.0"
    assert status["model"] == {
        "uri": "file:///workspace/runs/demo-run-uid-/final_model", "digest": "t" * 64, "baseDigest": "m" * 64, "parameters": 10,
    }  # fmt: skip
    assert status["summary"] == {"score": "2", "model": "osft-model:1.0.0", "algorithm": "osft"}
    assert condition(status, "Succeeded") == ("True", "Succeeded")
    assert condition(status, "Stalled") == ("False", "Settled")


def test_a_settled_run_is_left_alone() -> None:
    world = World.new()
    world.settle()
    decision = decide(world)
    assert (decision.status, decision.effects, decision.events) == (run_of(world).status, (), ())


def test_stages_that_a_run_does_without_are_skipped_at_once() -> None:
    world = World.new({**MINIMAL, "evaluation": {"enabled": False}})
    go(world)
    assert stage(world, "evaluation").reason == "EvaluationDisabled"
    assert stage(world, "baseline").reason == "EvaluationDisabled"
    assert {effect.ref.name for effect in go(world).effects} == {"demo-dataset-1-1", "demo-model-1-1"}
    world.settle()
    status = run_of(world).status
    assert status["phase"] == "Succeeded"
    assert condition(status, "Evaluated") == ("False", "EvaluationDisabled")


def test_without_a_registry_the_model_stays_where_it_is() -> None:
    world = World.new()
    place = replace(SETTINGS, local_registry=False)
    decision = plan(run_of(world), Observed(place), NOW)
    entries = {entry["name"]: entry for entry in decision.status["stages"]}
    assert entries["registration"]["reason"] == "RegistryNotConfigured"


def test_a_claim_of_its_own_is_made_and_has_no_owner() -> None:
    world = World.new({**MINIMAL, "storage": {"size": "5Gi", "storageClassName": "fast"}}, claim=False)
    claim = next(effect.manifest for effect in decide(world).effects if isinstance(effect, Create) and effect.ref.kind == CLAIM)
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "fast",
    }  # fmt: skip
    assert "ownerReferences" not in claim["metadata"]
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_claim_that_is_missing_is_waited_for() -> None:
    world = World.new(claim=False)
    go(world)
    decision = go(world, NOW + timedelta(seconds=5))
    assert condition(decision.status, "Stalled") == ("True", "ClaimNotFound")
    assert decision.again_in is not None
    world.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "workspace", "namespace": "team"}})
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


# -- failures ----------------------------------------------------------------------------------------------------------


def fault(reason: str, message: str = "words") -> str:
    return termination_message(Result("dataset", "1.1", "", "Failed", reason, message))


def test_a_fault_of_the_user_ends_the_run_with_the_mend() -> None:
    world = world_at("dataset")
    decision = go(world, **failing(world, "dataset", Termination(65, "Error", fault("BadRow", "Row 3 has no messages."))))
    assert stage(world, "dataset").state == "Failed"
    world.finish(child(world, "model"))
    go(world)
    status = run_of(world).status
    assert status["phase"] == "Failed"
    failure = status["failure"]
    assert (failure["stage"], failure["reason"], failure["message"], failure["exitCode"]) == (
        "dataset", "BadRow", "Row 3 has no messages.", 65,
    )  # fmt: skip
    assert "dataset.badRows" in failure["hint"]
    assert condition(status, "Succeeded") == ("False", "BadRow")
    assert condition(status, "Stalled") == ("True", "BadRow")
    assert any(event.type == "Warning" and event.reason == "BadRow" for event in decision.events)


def test_what_still_runs_is_stopped_before_a_failed_run_ends() -> None:
    world = World.new()
    for _ in range(3):
        go(world)
    model = child(world, "model")
    decision = go(world, **failing(world, "dataset", Termination(65, "Error", fault("DatasetEmpty"))))
    assert [effect.ref for effect in decision.effects if isinstance(effect, Delete)] == [model]
    assert "finishedAt" not in decision.status
    assert condition(decision.status, "Succeeded") == ("Unknown", "Stopping")
    decision = go(world)
    assert decision.status["finishedAt"]
    assert stage(world, "model").state == "Skipped"


def test_a_passing_fault_is_tried_again_with_longer_pauses_and_then_no_more() -> None:
    world = world_at("dataset")
    now, pauses = NOW, []
    place = replace(SETTINGS, retry_seconds=10.0)
    for _ in range(3):
        report = failing(world, "dataset", Termination(75, "Error", fault("DatasetUnreachable")))
        world.finish(child(world, "dataset"), exit_code=75, message="")
        decision = go(world, now, settings=place, **report)
        assert stage(world, "dataset").state == "Retrying"
        pauses.append(decision.again_in)
        assert not [effect for effect in go(world, now, settings=place).effects if isinstance(effect, Create)]
        now += timedelta(seconds=(decision.again_in or 0) + 1)
        go(world, now, settings=place)
        go(world, now, settings=place)
    assert pauses == [10.0, 20.0, 40.0]
    assert stage(world, "dataset").attempt == 4
    report = failing(world, "dataset", Termination(75, "Error", fault("DatasetUnreachable")))
    go(world, now, settings=place, **report)
    assert stage(world, "dataset").state == "Failed"
    assert stage(world, "dataset").failures == {"Transient": 4}


def test_the_number_of_tries_may_be_changed_on_the_way() -> None:
    world = world_at("dataset")
    world.run = {**world.run, "spec": {**world.run["spec"], "retry": {"transient": 0}}}
    go(world, **failing(world, "dataset", Termination(75, "Error", fault("DatasetUnreachable"))))
    assert stage(world, "dataset").state == "Failed"


def test_an_interruption_counts_against_nobody() -> None:
    world = world_at("training")
    for _ in range(12):
        go(world, **failing(world, "training", Termination(143, "Error", fault("Interrupted"))))
        assert stage(world, "training").state == "Retrying"
        go(world)
        go(world)
        go(world)
    assert stage(world, "training").attempt == 13
    assert stage(world, "training").failures == {}


def test_evaluation_may_fail_where_the_user_forgives_it() -> None:
    world = world_at("evaluation", {**MINIMAL, "evaluation": {"tasks": [], "onFailure": "Continue"}})
    go(world, **failing(world, "evaluation", Termination(65, "Error", fault("TaskNotFound"))))
    assert stage(world, "evaluation").state == "Failed"
    world.settle()
    status = run_of(world).status
    assert status["phase"] == "Succeeded"
    assert condition(status, "Evaluated") == ("False", "TaskNotFound")
    assert condition(status, "Registered")[0] == "True"


@pytest.mark.parametrize("name", ["dataset", "training"])
def test_a_known_child_that_is_gone_is_lost_and_made_again_under_another_name(name: str) -> None:
    world = world_at(name)
    before = child(world, name)
    world.remove(before)
    go(world)
    assert stage(world, name).reason == "ChildLost"
    assert stage(world, name).failures == {"Lost": 1}
    go(world)
    assert child(world, name) != before
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_child_that_was_intended_but_never_seen_is_made_again_under_its_name() -> None:
    world = World.new()
    go(world)
    go(world)
    world.remove(Ref(JOB, "demo-dataset-1-1"))
    assert Ref(JOB, "demo-dataset-1-1") in [effect.ref for effect in go(world).effects]
    assert stage(world, "dataset").attempt == 1


def test_a_child_that_was_replaced_is_lost() -> None:
    world = world_at("dataset")
    ref = child(world, "dataset")
    found = world.objects[ref]
    world.objects[ref] = {**found, "metadata": {**found["metadata"], "uid": "another"}}
    go(world)
    assert stage(world, "dataset").reason == "ChildLost"


def owned_by(world: World, ref: Ref, owners: list[dict[str, Any]]) -> None:
    found = world.objects[ref]
    world.objects[ref] = {**found, "metadata": {**found["metadata"], "ownerReferences": owners}}


def test_a_stranger_of_the_name_is_never_adopted() -> None:
    world = World.new()
    go(world)
    go(world)
    ref = Ref(JOB, "demo-dataset-1-1")
    owned_by(world, ref, [])
    decision = go(world)
    assert stage(world, "dataset").reason == "NameConflict"
    assert not [effect for effect in decision.effects if effect.ref == ref]


def test_a_child_of_an_earlier_run_of_the_name_is_waited_for() -> None:
    world = World.new()
    go(world)
    go(world)
    owner = {"kind": "FineTuneRun", "name": "demo", "uid": "an-earlier-one", "controller": True}
    owned_by(world, Ref(JOB, "demo-dataset-1-1"), [owner])
    decision = go(world)
    assert stage(world, "dataset").state == "Running"
    assert "earlier run" in stage(world, "dataset").message
    assert decision.again_in == 2.0
    world.remove(Ref(JOB, "demo-dataset-1-1"))
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_child_that_the_api_refuses_for_good_fails_the_run() -> None:
    world = World.new()
    go(world)
    go(world)
    ref = Ref(JOB, "demo-dataset-1-1")
    world.remove(ref)
    go(world, refused={ref: Refused("exceeded quota: jobs")})
    assert run_of(world).status["failure"]["reason"] == "ChildRefused"
    assert "exceeded quota" in run_of(world).status["failure"]["message"]


def test_a_right_that_is_missing_is_told_and_waited_for() -> None:
    world = World.new()
    go(world)
    go(world)
    ref = Ref(JOB, "demo-dataset-1-1")
    world.remove(ref)
    decision = decide(world, refused={ref: Refused("may not create jobs", forbidden=True)})
    assert condition(decision.status, "Stalled") == ("True", "ChildRefused")
    assert ref in [effect.ref for effect in decision.effects]


def test_a_workspace_object_that_is_refused_is_told() -> None:
    world = World.new()
    go(world)
    ref = Ref(CONFIGMAP, "demo-inputs-1")
    del world.objects[ref]
    decision = decide(world, refused={ref: Refused("no")})
    assert condition(decision.status, "Stalled") == ("True", "ChildRefused")


def finished_with(world: World, name: str, change: dict[str, Any] | None, digest: str | None = None) -> dict[str, Any]:
    """An observation in which a stage ended with exit code 0 and a changed result (``None``: none at all)."""
    ref = child(world, name)
    message = ""
    if change is not None:
        result = parse_message(world.success_message(ref))
        assert result is not None
        outputs = {**result.outputs, **change}
        message = termination_message(replace(result, outputs=outputs, inputs_digest=digest or result.inputs_digest))
    pod = PodReport(f"{ref.name}-0", phase="Succeeded", termination=Termination(0, "Completed", message))
    return {"pods": {name: (pod,)}}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("dataset", {"trainRows": 0}, "no row to train on"),
        ("model", {"parameters": 0}, "no parameters"),
        ("training", {"samplesSeen": 8}, "8 of 9 samples were seen"),
        ("training", {"samplesSeen": 0, "expectedSamples": 0}, "0 of 0 samples were seen"),
        ("training", {"opened": False}, "not opened again"),
        ("registration", {"readBack": False}, "not read back"),
    ],
)
def test_exit_code_0_without_proof_is_a_failure(name: str, change: dict[str, Any], words: str) -> None:
    world = world_at(name)
    go(world, **finished_with(world, name, change))
    assert stage(world, name).reason == "ProofMissing"
    assert words in stage(world, name).message
    assert stage(world, name).state == "Retrying"


def test_an_evaluation_without_a_score_is_no_proof() -> None:
    world = world_at("evaluation")
    ref = child(world, "evaluation")
    result = parse_message(world.success_message(ref))
    assert result is not None
    message = termination_message(replace(result, metrics={"seconds": 1.0, "holdout.acc_stderr": 0.1}))
    go(world, pods={"evaluation": (PodReport("p", phase="Succeeded", termination=Termination(0, "", message)),)})
    assert stage(world, "evaluation").reason == "ProofMissing"


def test_a_result_of_other_inputs_is_no_proof() -> None:
    world = world_at("dataset")
    go(world, **finished_with(world, "dataset", {}, digest="0" * 64))
    assert "other inputs" in stage(world, "dataset").message


def test_a_result_that_says_it_failed_is_no_proof() -> None:
    world = world_at("dataset")
    message = termination_message(Result("dataset", "1.1", "", "Failed", "BadRow", ""))
    go(world, pods={"dataset": (PodReport("p", phase="Succeeded", termination=Termination(0, "", message)),)})
    assert "its result says Failed" in stage(world, "dataset").message


@pytest.mark.parametrize("change", [{"unknownField": 1}, {"trainRows": "many"}])
def test_a_result_that_cannot_be_read_is_of_another_contract(change: dict[str, Any]) -> None:
    world = world_at("dataset")
    go(world, **finished_with(world, "dataset", change))
    assert stage(world, "dataset").reason == "ContractUnknown"


def test_a_success_whose_result_is_gone_is_asked_again() -> None:
    world = world_at("dataset")
    world.finish(child(world, "dataset"))
    go(world, pods={})
    assert stage(world, "dataset").reason == "ResultMissing"
    assert stage(world, "dataset").state == "Retrying"


def test_the_first_rank_that_fails_ends_the_attempt_of_all() -> None:
    world = world_at("training", {**MINIMAL, "training": {"workers": 2}})
    ref = child(world, "training")
    pods = (PodReport("p0", 0, "Running"), PodReport("p1", 1, "Failed", Termination(1, "Error", "")))
    decision = go(world, pods={"training": pods}, logs={"p1": "RuntimeError: CUDA out of memory. Tried to allocate"})
    assert ref in [effect.ref for effect in decision.effects if isinstance(effect, Delete)]
    assert run_of(world).status["failure"]["reason"] == "OutOfMemoryGPU"


def test_all_ranks_must_have_ended() -> None:
    world = world_at("training", {**MINIMAL, "training": {"workers": 2}})
    message = world.success_message(child(world, "training"))
    done = PodReport("p0", 0, "Succeeded", Termination(0, "Completed", message))
    go(world, pods={"training": (done, PodReport("p1", 1, "Running"))})
    assert stage(world, "training").state == "Running"
    go(world, pods={"training": (done, PodReport("p1", 1, "Succeeded", Termination(0)))})
    assert stage(world, "training").state == "Succeeded"


def test_the_end_of_the_log_is_kept_with_the_failure() -> None:
    world = world_at("dataset")
    report = failing(world, "dataset", Termination(1, "Error", ""))
    name = report["pods"]["dataset"][0].name
    world.run = {**world.run, "spec": {**world.run["spec"], "retry": {"crash": 0}}}
    go(world, **report, logs={name: "x" * 5000 + "the end"})
    tail = run_of(world).status["failure"]["logTail"]
    assert len(tail) == 2048
    assert tail.endswith("the end")


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"waiting": "ImagePullBackOff", "waiting_message": "no such image"}, "ImagePullFailed"),
        ({"waiting": "CreateContainerConfigError", "waiting_message": 'secret "x" not found'}, "SecretMissing"),
        ({"waiting": "CrashLoopBackOff"}, "StartFailed"),
        ({"unschedulable": "0/3 nodes are available: insufficient nvidia.com/gpu"}, "Unschedulable"),
    ],
)
def test_pods_that_cannot_start_are_told_and_waited_for(report: dict[str, str], reason: str) -> None:
    world = world_at("dataset")
    decision = decide(world, pods={"dataset": (PodReport("p", **report),)})  # type: ignore[arg-type]
    assert condition(decision.status, "Stalled") == ("True", reason)
    assert decision.status["summary"]["message"].startswith(f"{reason}: ")
    assert "failure" not in decision.status
    assert condition(decide(world).status, "Stalled")[0] == "False"


def test_a_pod_that_is_starting_is_no_obstacle() -> None:
    world = world_at("dataset")
    decision = decide(world, pods={"dataset": (PodReport("p", waiting="ContainerCreating"),)})
    assert condition(decision.status, "Stalled")[0] == "False"
    assert {entry["name"]: entry for entry in decision.status["stages"]}["dataset"]["reason"] == "Starting"


# -- progress ----------------------------------------------------------------------------------------------------------


def log_of(world: World, name: str, text: str) -> dict[str, str]:
    return {world.pods_of(child(world, name).kind.name, child(world, name).name, name)[0].name: text}


def test_progress_comes_out_of_the_log() -> None:
    world = world_at("training")
    report = Progress(
        40, step=4, total_steps=10, epoch=0.4, eta_seconds=75, loss=2.5, tokens_per_second=123.4, time=1_700_000_000
    )
    decision = go(world, logs=log_of(world, "training", f"noise\n{line(report)}\n"))
    assert decision.status["progress"] == {
        "stage": "training", "percent": 40, "step": 4, "totalSteps": 10, "epoch": 0.4, "etaSeconds": 75, "loss": 2.5,
        "tokensPerSecond": 123.4, "lastReport": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert decision.status["summary"]["progress"] == "40%"
    assert decision.status["summary"]["eta"] == "1m15s"
    assert decision.status["summary"]["loss"] == "2.5"
    assert decision.status["history"] == [{"step": 4, "loss": 2.5}]


def test_progress_without_a_time_has_that_of_the_look() -> None:
    world = world_at("dataset")
    decision = decide(world, logs=log_of(world, "dataset", line(Progress(10, note="downloading"))))
    assert decision.status["progress"] == {"stage": "dataset", "percent": 10, "note": "downloading", "lastReport": stamp(NOW)}
    assert "history" not in decision.status


def test_progress_stays_until_there_is_news_and_goes_with_the_run() -> None:
    world = world_at("training")
    go(world, logs=log_of(world, "training", line(Progress(40, step=4, loss=2.5))))
    assert decide(world).status["progress"]["percent"] == 40
    world.settle()
    assert "progress" not in run_of(world).status


def test_the_curve_grows_stays_small_and_begins_again_with_a_new_attempt() -> None:
    world = world_at("training")
    for step in range(1, 200):
        go(world, logs=log_of(world, "training", line(Progress(step // 2, step=step, loss=1 / step))))
    history = run_of(world).status["history"]
    assert len(history) <= 64
    assert (history[0]["step"], history[-1]["step"]) == (1, 199)
    go(world, logs=log_of(world, "training", line(Progress(1, step=1, loss=9.0))))
    assert run_of(world).status["history"] == [{"step": 1, "loss": 9.0}]


# -- steering ----------------------------------------------------------------------------------------------------------


def edit(world: World, **spec: Any) -> None:
    metadata = {**world.run["metadata"], "generation": world.run["metadata"]["generation"] + 1}
    world.run = {**world.run, "metadata": metadata, "spec": {**world.run["spec"], **spec}}


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
    assert condition(decision.status, "Reconciling")[0] == "False"
    for _ in range(3):
        go(world)
    assert stage(world, "training").reason == "Suspended"
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
        ("dataset", {"dataset", "training", "baseline", "evaluation", "registration"}),
        ("model", {"model", "training", "baseline", "evaluation", "registration"}),
        ("training", {"training", "evaluation", "registration"}),
        ("evaluation", {"baseline", "evaluation", "registration"}),
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
    assert needs(run_of(world)) == ()
    go(world)
    assert len(needs(run_of(world))) == 3
    world.settle()
    assert needs(run_of(world)) == ()
    assert active_stages(run_of(world)) == ()


# -- size --------------------------------------------------------------------------------------------------------------


def test_the_object_stays_small_whatever_is_in_it() -> None:
    world = world_at("dataset")
    scores = {f"task_number_{number:04}.accuracy_normalised": 0.123456789 for number in range(250)}
    world.write_status({
        **run_of(world).status,
        "metrics": {"evaluation": scores, "baseline": scores, "training": scores},
        "history": [{"step": step, "loss": 1.23456789} for step in range(64)],
    })  # fmt: skip
    report = failing(world, "dataset", Termination(65, "Error", fault("BadRow", "m" * 900)))
    name = report["pods"]["dataset"][0].name
    decision = go(world, **report, logs={name: "l" * 5000})
    assert len(json.dumps({**world.run, "status": decision.status})) < 64 * 1024


def test_an_adapter_is_told_beside_the_model() -> None:
    world = world_at("training", {**MINIMAL, "training": {"algorithm": "lora"}})
    outputs = {**encode(OUTPUTS["training"]), "adapterDigest": "a" * 64}
    record = run_of(world).stages["training"]
    message = termination_message(Result("training", "1.1", record.inputs_digest or "", "Succeeded", outputs=outputs))
    world.finish(child(world, "training"), message=message)
    go(world)
    assert run_of(world).status["model"]["adapterUri"] == "file:///workspace/runs/demo-run-uid-/adapter"


def test_without_a_trainer_the_run_waits_and_goes_on_by_itself_once_there_is_one() -> None:
    world = World.new()
    bare = replace(SETTINGS, trainer=None)
    for _ in range(6):
        decision = world.decide(settings=bare)
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in world.active():
            world.finish(ref)
    status = run_of(world).status
    assert condition(status, "Stalled") == ("True", "TrainerNotInstalled")
    assert not [ref for ref in world.objects if ref.kind is TRAINJOB]
    assert not decide(world, settings=bare).events
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert stage(world, "training").attempt == 1
