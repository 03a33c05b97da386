"""What the pods of each stage can write to, and that only what a stage reported counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.documents import ReadResult, parse_reads
from finetune_contract.result import EvaluationOutputs, Result, termination_message
from finetune_operator.api import reasons
from finetune_operator.api.stages import NAMES
from finetune_operator.core.isolation import runs_custom_code
from finetune_operator.core.manifests import pod, volumes
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run
from finetune_operator.core.stages import GRAPH
from unit.core.passes import child, decide, go, run_of, stage, world_at
from world import MINIMAL, World

ROOT = "/workspace/runs/demo-run-uid-"


def resolved(training: dict[str, Any] | None = None, **spec: Any) -> Run:
    world = World.new({**MINIMAL, **spec, "training": {"algorithm": "sft", **(training or {})}})
    go(world)
    return isolated(run_of(world))


def isolated(run: Run, isolation: str | None = "mounts") -> Run:
    return replace(run, status={**run.status, "resolved": {**run.status["resolved"], "isolation": isolation}})


def access(run: Run, name: str) -> dict[str, bool]:
    """The mounts of the workspace: path, and whether it is writable."""
    found = volumes.mounts(run, run.stages[name], PodNeeds())
    return {one["mountPath"]: not one.get("readOnly") for one in found if one["mountPath"].startswith("/workspace")}


def test_training_writes_to_its_own_folder_only() -> None:
    assert access(resolved(), "training") == {
        "/workspace": False, f"{ROOT}/training": True, "/workspace/cache/results/training": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"image": "registry.example.com/mine:1"}},
        {"training": {"env": [{"name": "MY_PLUGINS", "value": "/data"}]}},
        {
            "training": {
                "volumes": [{"name": "libraries", "emptyDir": {}}],
                "volumeMounts": [{"name": "libraries", "mountPath": "/opt/libraries"}],
            }
        },
        {"model": {"uri": "org/model", "trustRemoteCode": True}},
    ],
    ids=["image", "variable", "volume", "code of the model"],
)
def test_code_of_others_cannot_offer_its_results_to_other_runs(changes: dict[str, Any]) -> None:
    assert access(resolved(**changes), "training") == {"/workspace": False, f"{ROOT}/training": True}


@pytest.mark.parametrize("isolation", ["digests", None])
def test_without_isolation_by_mounts_training_mounts_the_workspace_once(isolation: str | None) -> None:
    assert access(isolated(resolved(), isolation), "training") == {"/workspace": True}


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_a_trainjob_mounts_a_volume_once_and_its_volumes_exist(name: str) -> None:
    run = resolved()
    names = [one["name"] for one in volumes.mounts(run, run.stages[name], PodNeeds())]
    defined = {one["name"]: one for one in volumes.volumes(run, run.stages[name], PodNeeds())}
    assert set(names) == set(defined)
    assert (len(names) == len(set(names))) == (name == "training")
    claims = {one["persistentVolumeClaim"]["claimName"] for one in defined.values() if "persistentVolumeClaim" in one}
    assert claims == {"workspace"}


@pytest.mark.parametrize(
    ("isolation", "custom", "claim", "first", "again"),
    [
        ("digests", False, True, True, True), ("digests", True, False, True, True), ("digests", False, False, True, False),
        ("mounts", True, True, False, False), (None, True, True, False, False),
    ],
)  # fmt: skip
def test_what_a_later_attempt_of_the_evaluation_may_use(
    isolation: str | None, custom: bool, claim: bool, first: bool, again: bool
) -> None:
    run = isolated(resolved({"image": "registry.example.com/mine:1"} if custom else None), isolation)
    spec = {**run.status["resolved"]["spec"], "storage": {"claimName": "workspace"} if claim else {"size": "1Gi"}}
    run = replace(run, status={**run.status, "resolved": {**run.status["resolved"], "spec": spec}})
    for name, late in (("evaluation", True), ("baseline", True), ("registration", True), ("tokenization", False)):
        second = run.stages[name].but(attempt=2, child_kind="Job")
        found = {one["name"] for one in pod.environment(run, second, PodNeeds(), None)}
        assert ("FINETUNE_FIRST" in found) == (first and late)
        assert ("FINETUNE_AGAIN" in found) == (again and (late or claim) and name != "registration")


@pytest.mark.parametrize(
    ("isolation", "custom", "round_", "again"),
    [
        ("digests", True, 2, True),
        ("digests", True, 1, False),
        ("digests", False, 2, False),
        ("mounts", True, 2, False),
        (None, True, 2, False),
    ],
)
def test_rows_that_a_training_of_an_earlier_round_could_have_written_are_rendered_again(
    isolation: str | None, custom: bool, round_: int, again: bool
) -> None:
    run = isolated(resolved({"image": "registry.example.com/mine:1"} if custom else None), isolation)
    spec = {**run.status["resolved"]["spec"], "storage": {"size": "1Gi"}}
    run = replace(run, status={**run.status, "round": round_, "resolved": {**run.status["resolved"], "spec": spec}})
    assert ("FINETUNE_AGAIN" in variables(run, "tokenization")) == again


@pytest.mark.parametrize(
    ("isolation", "custom", "waits"),
    [("digests", True, True), ("digests", False, False), ("mounts", True, False), (None, True, False)],
)
def test_the_base_model_is_measured_while_no_training_can_replace_it(isolation: str | None, custom: bool, waits: bool) -> None:
    world = world_at("training", {**MINIMAL, "training": {"algorithm": "sft", **({"image": "mine:1"} if custom else {})}})
    world.objects.pop(child(world, "baseline"), None)  # it has begun, because there is no isolation in this world
    status = world.run["status"]
    stages = [{"name": "baseline", "state": "Pending"} if one["name"] == "baseline" else one for one in status["stages"]]
    world.write_status({**status, "resolved": {**status["resolved"], "isolation": isolation}, "stages": stages})
    running = {"training": (PodReport("p", phase="Running"),)}
    begun = [effect.ref.name for effect in decide(world, pods=running).effects]
    assert begun == ([] if waits else ["demo-baseline-1-1"])
    world.finish(child(world, "training"))
    assert "demo-baseline-1-1" in [effect.ref.name for effect in decide(world).effects]


def test_the_image_of_the_configuration_is_no_custom_code() -> None:
    run = resolved()
    spec = {**run.status["resolved"]["spec"], "training": {**run.status["resolved"]["spec"]["training"], "image": "ours"}}
    status = {**run.status, "resolved": {**run.status["resolved"], "spec": spec, "images": {"training": "ours"}}}
    assert not runs_custom_code(replace(run, status=status))
    assert runs_custom_code(replace(run, status={**status, "resolved": {**status["resolved"], "images": {}}}))


@pytest.mark.parametrize(
    ("name", "read_only"),
    [
        ("dataset", []), ("model", []), ("tokenization", ["datasets"]), ("baseline", ["datasets", "tokens", "training"]),
        ("evaluation", ["datasets", "tokens", "training"]), ("registration", ["datasets", "tokens", "training"]),
    ],
)  # fmt: skip
def test_what_earlier_stages_published_is_read_only(name: str, read_only: list[str]) -> None:
    assert access(resolved(), name) == {"/workspace": True, **{f"{ROOT}/{part}": False for part in read_only}}


def test_a_mounted_part_is_the_same_folder_of_the_volume() -> None:
    parts = [one for one in volumes.mounts(resolved(), resolved().stages["evaluation"], PodNeeds()) if "subPath" in one]
    assert [one["mountPath"] for one in parts] == [f"/workspace/{one['subPath']}" for one in parts]


def test_every_stage_gets_its_own_document_only_and_the_engine_check_no_claim() -> None:
    run = resolved()
    for name in GRAPH.programs:
        found = {one["name"]: one for one in volumes.volumes(run, run.stages[name], PodNeeds())}
        document = f"{name}.json"
        assert found["documents"]["configMap"]["items"] == [{"key": document, "path": document}]
        assert ("persistentVolumeClaim" in found["workspace"]) == (name != "engine-check")


def variables(run: Run, name: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod.environment(run, run.stages[name], PodNeeds(), None)}


def test_a_stage_gets_what_the_earlier_ones_reported() -> None:
    world = world_at("evaluation")
    outputs = encode(EvaluationOutputs("t" * 64, 1, (), {"holdout.bits_per_byte": False}))
    ref = child(world, "evaluation")
    result = Result(
        "evaluation", "1.1", world.inputs_digest(ref), "Succeeded", metrics={"holdout.bits_per_byte": 1.0}, outputs=outputs,
        file="results/evaluation.json", file_digest="f" * 64,
    )  # fmt: skip
    world.finish(ref, message=termination_message(result))
    go(world)
    assert stage(world, "evaluation").result_digest == "f" * 64
    assert {one["name"]: one.get("resultDigest") for one in world.run["status"]["stages"]}["evaluation"] == "f" * 64
    found = parse_reads(variables(run_of(world), "registration")["FINETUNE_READS"])
    assert found is not None
    assert found["evaluation"] == ReadResult(None, "f" * 64)
    assert found["training"].outputs == "t" * 64
    assert variables(run_of(world), "registration")["FINETUNE_FIRST"] == "1"
    assert "FINETUNE_READS" not in variables(run_of(world), "dataset")


def test_a_stage_that_failed_has_reported_nothing() -> None:
    world = world_at("evaluation", {**MINIMAL, "evaluation": {"tasks": [], "onFailure": "Continue"}})
    world.finish(child(world, "evaluation"), 65, "{}")
    for _ in range(4):
        go(world)
        if stage(world, "evaluation").state == "Failed":
            break
        for ref in world.active():
            world.finish(ref, 65, "{}")
    found = json.loads(variables(run_of(world), "registration")["FINETUNE_READS"])
    assert set(found) == {"dataset", "model", "training"}


def test_a_second_attempt_and_a_training_may_find_results_of_their_own() -> None:
    world = world_at("training")
    assert "FINETUNE_FIRST" not in variables(run_of(world), "training"), "its pods may be restarted in one attempt"
    run = run_of(world)
    second = replace(run, status={**run.status, "stages": [one.but(attempt=2).as_status() for one in run.stages.values()]})
    assert all("FINETUNE_FIRST" not in variables(second, name) for name in NAMES if name in GRAPH.programs)


@pytest.mark.parametrize("name", ["evaluation", "baseline"])
def test_scores_of_another_model_are_no_proof(name: str) -> None:
    world = world_at(name)
    ref = child(world, name)
    outputs = encode(EvaluationOutputs("x" * 64, 1, (), {"holdout.bits_per_byte": False}))
    result = Result(name, "1.1", world.inputs_digest(ref), "Succeeded", metrics={"holdout.bits_per_byte": 0.1}, outputs=outputs)
    world.finish(ref, message=termination_message(result))
    go(world)
    reported = {"evaluation": "training", "baseline": "model"}[name]
    assert stage(world, name).reason == "ProofMissing"
    assert stage(world, name).message == f"the scores are those of another model than that of stage {reported}."


@pytest.mark.parametrize(("name", "reason"), [("engine-check", reasons.CLAIM_NOT_BOUND), ("dataset", reasons.SUCCEEDED)])
def test_only_a_pod_that_mounts_the_claim_shows_that_it_is_bound(name: str, reason: str) -> None:
    world = World.new()
    go(world)
    while stage(world, "workspace").state != "Succeeded":
        go(world)
    status = decide(world, pods={name: (PodReport("p", phase="Running"),)}).status
    assert {one["name"]: one.get("reason") for one in status["stages"]}["workspace"] == reason
