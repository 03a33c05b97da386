"""State transitions of a run that meets failures, or has to wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.result import Result, parse_message, termination_message
from finetune_operator.api.kinds import CONFIGMAP, JOB
from finetune_operator.core.decision import Create, Delete
from finetune_operator.core.observation import Ref, Rejection
from finetune_operator.core.pod_report import PodReport, Termination
from unit.core.passes import child, condition, decide, failing, fault, go, run_of, stage, world_at
from world import MINIMAL, NOW, SETTINGS, World

# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_user_error_ends_the_run_with_the_remedy() -> None:
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


def test_a_transient_failure_is_retried_with_longer_pauses_until_the_limit() -> None:
    world = world_at("dataset")
    now, pauses = NOW, []
    place = replace(SETTINGS, retry_seconds=10.0)
    for _ in range(3):
        report = failing(world, "dataset", Termination(75, "Error", fault("DatasetUnreachable")))
        world.finish(child(world, "dataset"), exit_code=75, message="")
        decision = go(world, now, settings=place, **report)
        assert stage(world, "dataset").state == "Retrying"
        pauses.append(decision.requeue_after)
        assert not [effect for effect in go(world, now, settings=place).effects if isinstance(effect, Create)]
        now += timedelta(seconds=(decision.requeue_after or 0) + 1)
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
    assert decision.requeue_after == 2.0
    world.remove(Ref(JOB, "demo-dataset-1-1"))
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_a_child_that_the_api_server_rejects_permanently_fails_the_run() -> None:
    world = World.new()
    go(world)
    go(world)
    ref = Ref(JOB, "demo-dataset-1-1")
    world.remove(ref)
    go(world, rejected={ref: Rejection("a policy denies it")})
    assert run_of(world).status["failure"]["reason"] == "ChildRejected"
    assert "a policy denies it" in run_of(world).status["failure"]["message"]


def test_a_missing_permission_is_reported_and_waited_for() -> None:
    world = World.new()
    go(world)
    go(world)
    ref = Ref(JOB, "demo-dataset-1-1")
    world.remove(ref)
    decision = decide(world, rejected={ref: Rejection("may not create jobs", forbidden=True)})
    assert condition(decision.status, "Stalled") == ("True", "ChildRejected")
    assert ref in [effect.ref for effect in decision.effects]


def test_a_workspace_object_that_is_rejected_is_reported() -> None:
    world = World.new()
    go(world)
    ref = Ref(CONFIGMAP, "demo-inputs-1")
    del world.objects[ref]
    decision = decide(world, rejected={ref: Rejection("no")})
    assert condition(decision.status, "Stalled") == ("True", "ChildRejected")


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
        ("training", {"samplesSeen": 8}, "8 of 9 samples were processed"),
        ("training", {"samplesSeen": 0, "expectedSamples": 0}, "0 of 0 samples were processed"),
        ("training", {"opened": False}, "written model was not opened"),
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


def test_a_failed_result_is_not_a_proof() -> None:
    world = world_at("dataset")
    message = termination_message(Result("dataset", "1.1", "", "Failed", "BadRow", ""))
    go(world, pods={"dataset": (PodReport("p", phase="Succeeded", termination=Termination(0, "", message)),)})
    assert "the outcome in the result is Failed" in stage(world, "dataset").message


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


def test_the_end_of_the_log_has_no_credentials() -> None:
    world = world_at("dataset")
    report = failing(world, "dataset", Termination(1, "Error", ""))
    name = report["pods"]["dataset"][0].name
    world.run = {**world.run, "spec": {**world.run["spec"], "retry": {"crash": 0}}}
    go(world, **report, logs={name: "GET https://me:pw@host/x?sig=abc with hf_abcdefghijklmnopqrst"})
    assert run_of(world).status["failure"]["logTail"] == "GET https://***@host/x?sig=*** with ***"


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"waiting": "ImagePullBackOff", "waiting_message": "no such image"}, "ImagePullFailed"),
        ({"waiting": "CreateContainerConfigError", "waiting_message": 'secret "x" not found'}, "SecretMissing"),
        ({"waiting": "CrashLoopBackOff"}, "StartFailed"),
        (
            {"unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "created_at": "2026-01-01T00:00:00Z"},
            "GPUUnavailable",
        ),
    ],
)
def test_pods_that_cannot_start_are_reported_and_waited_for(report: dict[str, str], reason: str) -> None:
    world = world_at("dataset")
    decision = decide(world, pods={"dataset": (PodReport("p", **report),)})  # type: ignore[arg-type]
    assert condition(decision.status, "Stalled") == ("True", reason)
    assert decision.status["summary"]["message"].startswith(f"{reason}: ")
    assert "failure" not in decision.status
    assert condition(decide(world).status, "Stalled")[0] == "False"


def test_a_pod_that_is_starting_is_no_blocker() -> None:
    world = world_at("dataset")
    decision = decide(world, pods={"dataset": (PodReport("p", waiting="ContainerCreating"),)})
    assert condition(decision.status, "Stalled")[0] == "False"
    assert {entry["name"]: entry for entry in decision.status["stages"]}["dataset"]["reason"] == "Starting"
