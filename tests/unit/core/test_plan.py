"""State transitions of a run that goes well: a status and an observation in, the next status and effects out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.progress import Progress, line
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, JOB, TRAINJOB
from finetune_operator.core.decision import Create
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.times import stamp
from unit.core.passes import child, condition, decide, edit, failing, fault, go, run_of, stage, world_at
from world import MINIMAL, NOW, OUTPUTS, SETTINGS, World

# -- the way of a run that goes well -----------------------------------------------------------------------------------


def test_the_first_pass_resolves_the_run_and_makes_its_workspace() -> None:
    decision = decide(World.new())
    assert decision.status["startedAt"] == stamp(NOW)
    assert [effect.ref for effect in decision.effects] == [
        Ref(CONFIGMAP, "demo-inputs-1"), Ref(CONFIGMAP, "finetune-training-bundle-" + "e" * 16),
    ]  # fmt: skip
    assert [event.reason for event in decision.events] == ["RunStarted"]


def test_an_edit_of_what_stays_mutable_is_seen_when_the_run_has_ended() -> None:
    world = World.new()
    for _ in range(12):
        go(world)
        for ref in world.active():
            world.finish(ref)
    assert run_of(world).ended
    edit(world, cleanup={"ttlAfterFinished": "1h"})
    decision = decide(world)
    assert decision.status["observedGeneration"] == 2
    assert {entry["observedGeneration"] for entry in decision.status["conditions"]} == {2}
    assert decision.effects == ()
    assert decision.events == ()


def test_an_operator_that_was_upgraded_before_the_workspace_was_made_brings_its_own_training_program() -> None:
    world = World.new()
    world.write_status(decide(world).status)  # and then the operator ends
    newer = replace(SETTINGS, bundle_digest="f" * 64)
    for _ in range(3):
        decision = decide(world, settings=newer)
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
    assert run_of(world).status["resolved"]["entryDigest"] == "f" * 64
    assert stage(world, "workspace").state == "Succeeded"
    assert Ref(CONFIGMAP, "finetune-training-bundle-" + "f" * 16) in world.objects


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
    assert [effect.ref for effect in go(world).effects] == [Ref(JOB, "demo-tokenization-1-1")]
    world.finish(Ref(JOB, "demo-tokenization-1-1"))
    assert [effect.ref for effect in go(world).effects] == [Ref(TRAINJOB, "demo-train-1-1")]


def test_the_baseline_begins_when_training_has_its_pods() -> None:
    world = World.new()
    go(world)
    go(world)
    for _ in range(2):
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
        "uri": "file:///workspace/runs/demo-run-uid-/training/final_model", "digest": "t" * 64, "baseDigest": "m" * 64, "parameters": 10,
    }  # fmt: skip
    assert status["rows"] == {
        "source": 10, "bad": 0, "trained": 9, "tokens": 900, "learnedTokens": 90, "tokensPerRow": {"p50": 95, "p90": 110, "p99": 118, "max": 120}, "tooLong": 0, "nothingToLearn": 0, "rejected": 0,
        "measured": 1, "notMeasured": 0,
    }  # fmt: skip
    assert status["summary"] == {"rows": "9", "score": "2", "model": "osft-model:1.0.0", "algorithm": "osft"}
    assert condition(status, "Succeeded") == ("True", "Succeeded")
    assert condition(status, "Stalled") == ("False", "RunFinished")


def test_a_finished_run_is_not_changed() -> None:
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
    assert decision.requeue_after is not None
    world.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "workspace", "namespace": "team"}})
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"status": {"phase": "Lost"}}, "claim workspace: it has lost its volume"),
        ({"status": {"phase": "Bound"}, "deleted": stamp(NOW)}, "claim workspace: it is being deleted"),
    ],
)
def test_an_unusable_claim_is_reported_before_any_pod_is_created(state: dict[str, Any], message: str) -> None:
    world = World.new()
    ref = Ref(CLAIM, "workspace")
    sound = world.objects[ref]
    deleted = {"deletionTimestamp": state["deleted"]} if "deleted" in state else {}
    world.objects[ref] = {**sound, "status": state["status"], "metadata": {**sound["metadata"], **deleted}}
    go(world)
    decision = go(world)
    assert condition(decision.status, "WorkspaceReady") == ("False", "ClaimLost")
    assert decision.status["summary"]["message"] == f"ClaimLost: {message}"
    assert not world.children()
    world.objects[ref] = {**sound, "status": {"phase": "Bound"}}
    assert condition(go(world).status, "WorkspaceReady") == ("True", "Succeeded")


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


def test_an_adapter_is_shown_with_the_model() -> None:
    world = world_at("training", {**MINIMAL, "training": {"algorithm": "lora"}})
    outputs = {**encode(OUTPUTS["training"]), "adapterDigest": "a" * 64}
    record = run_of(world).stages["training"]
    message = termination_message(Result("training", "1.1", record.inputs_digest or "", "Succeeded", outputs=outputs))
    world.finish(child(world, "training"), message=message)
    go(world)
    assert run_of(world).status["model"]["adapterUri"] == "file:///workspace/runs/demo-run-uid-/training/adapter"


def test_without_a_trainer_the_run_waits_and_resumes_when_one_is_installed() -> None:
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
