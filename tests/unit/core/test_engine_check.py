"""Stage *engine-check*: when it is skipped, what it is recorded by, and what a failure costs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.result import EngineCheckOutputs, Result, termination_message
from finetune_operator.api.kinds import CLUSTER_TRAINING_RUNTIME, CONFIGMAP, TRAINJOB
from finetune_operator.core.blockers import expected_pods
from finetune_operator.core.decision import Create, Decision
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.reads import active_stages, lookups, needs
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.core.stages import GRAPH
from unit.core.passes import condition, edit, fault, run_of, stage
from unit.core.test_manifests import CLUSTER
from world import NOW, World, contents_of

Object = dict[str, Any]
PLACE = replace(CLUSTER, engine_check=True)
OWN = replace(PLACE, images={**PLACE.images, "training-cuda": "registry.example.com/training-cuda@sha256:1"})
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
PINNED = f"registry.example.com/train@{DIGEST}"
RUNTIME = Ref(CLUSTER_TRAINING_RUNTIME, "training-hub")
CHECK = Ref(TRAINJOB, "demo-engine-1-1")


def spec(**training: Any) -> Object:
    return {"dataset": {"uri": "org/data"}, "training": {"algorithm": "sft", **training}, "evaluation": {"tasks": []}}


def runtime(image: str) -> Object:
    """A runtime with another replicated job, and a second container."""
    containers = [{"name": "agent", "image": "agent"}, {"name": "node", "image": image}]
    jobs = [("initializer", [{"name": "node", "image": "other"}]), ("node", containers)]
    replicated = [{"name": name, "template": {"spec": {"template": {"spec": {"containers": found}}}}} for name, found in jobs]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime", "metadata": {"name": "training-hub"},
        "spec": {"template": {"spec": {"replicatedJobs": replicated}}},
    }  # fmt: skip


def observed(world: World, place: Settings = PLACE, **report: str) -> Observed:
    """What the loop sees of the world: with what stages look up, and with the content of ConfigMaps."""
    run = run_of(world)
    found = {ref: world.objects[ref] for ref in needs(run, place) if ref in world.objects}
    found |= {ref: world.objects[ref] for ref in lookups(run, found) if ref in world.objects}
    pods = {one.name: world.pods_of(one.child_kind, one.child_name, one.name) for one in active_stages(run)}
    seen = {name: tuple(replace(pod, **report) for pod in found) for name, found in pods.items() if found}  # type: ignore[arg-type]
    return Observed(place, found, seen, contents=contents_of(found))


def go(world: World, place: Settings = PLACE, **report: str) -> Decision:
    """One pass; ``report`` are fields of the report on every pod."""
    decision = plan(run_of(world), observed(world, place, **report), NOW)
    world.write_status(decision.status)
    for effect in decision.effects:
        world.apply_effect(effect)
    return decision


def started(world: World, place: Settings = PLACE) -> World:
    """The world when the first stages have started."""
    for _ in range(3):
        go(world, place)
    assert stage(world, "dataset").state == "Running"
    return world


def checked(world: World, **report: str) -> list[Object]:
    """The check succeeds; the records that this makes."""
    started(world)
    world.finish(CHECK)
    go(world, **report)
    return [item for ref, item in world.objects.items() if ref.name.startswith("finetune-engine-check-")]


def next_run(world: World, changed: Object | None = None) -> World:
    """A new run in the namespace in which ``world`` ran."""
    later = World.new(changed or world.run["spec"], claim=False)
    for ref, item in world.objects.items():
        if ref == RUNTIME or (ref.kind == CONFIGMAP and ref.name.startswith("finetune-engine")):
            later.objects[ref] = item
    return started(later)


@pytest.mark.parametrize(
    ("training", "place", "reason"),
    [
        ({}, CLUSTER, "EngineCheckDisabled"),
        ({"gpusPerWorker": 0}, PLACE, "TrainingWithoutGPU"),
        ({}, OWN, "OwnTrainingImage"),
        ({"image": OWN.images["training-cuda"]}, OWN, "OwnTrainingImage"),
    ],
)  # fmt: skip
def test_the_check_is_skipped_with_a_reason(training: Object, place: Settings, reason: str) -> None:
    world = started(World.new(spec(**training), claim=False), place)
    found = stage(world, "engine-check")
    assert (found.state, found.reason, found.child_name) == ("Skipped", reason, "")
    assert CHECK not in world.objects
    assert "engine-check.json" not in world.objects[Ref(CONFIGMAP, "demo-inputs-1")]["data"]


@pytest.mark.parametrize("training", [{}, {"image": "registry.example.com/train:1"}, {"workers": 4, "gpusPerWorker": 8}])
def test_a_check_runs_beside_data_and_model_in_one_pod(training: Object) -> None:
    world = started(World.new(spec(**training), claim=False))
    assert {name for name, one in run_of(world).stages.items() if one.state == "Running"} == {"dataset", "model", "engine-check"}
    assert expected_pods(run_of(world), stage(world, "engine-check")) == 1
    for ref in (*world.active(),):
        if ref != CHECK:
            world.finish(ref)
    for _ in range(4):
        go(world)
        for ref in world.active():
            if ref != CHECK:
                world.finish(ref)
    assert (stage(world, "tokenization").state, stage(world, "training").state) == ("Succeeded", "Pending")
    world.finish(CHECK)
    decision = go(world)
    assert stage(world, "training").state == "Running"
    (event,) = (event for event in decision.events if event.stage == "engine-check")
    assert (event.reason, event.posted) == ("StageSucceeded", False)


def test_without_trainer_the_run_reports_it_while_data_and_model_are_fetched() -> None:
    world = started(World.new(spec(), claim=False), replace(PLACE, trainer=None))
    assert condition(world.run["status"], "Stalled") == ("True", "TrainerNotInstalled")
    assert stage(world, "model").state == "Running"


@pytest.mark.parametrize("reason", ["EngineMissing", "BadTrainingValue"])
def test_a_wrong_image_ends_the_run_before_training_and_leaves_no_record(reason: str) -> None:
    world = started(World.new(spec(image=PINNED), claim=False))
    world.finish(CHECK, 65, fault(reason, "training.image: words"))
    for _ in range(3):
        go(world)
    status = world.run["status"]
    assert (status["failure"]["stage"], status["failure"]["reason"], status["phase"]) == ("engine-check", reason, "Failed")
    assert "rerun from training" in status["failure"]["hint"]
    assert not [ref for ref in world.objects if ref.name.startswith(("finetune-engine-check-", "demo-train-"))]
    assert {one.name: one.reason for one in run_of(world).stages.values()}["dataset"] == "RunFailed"


def test_an_image_that_cannot_be_pulled_blocks_the_run_before_training() -> None:
    world = started(World.new(spec(image=PINNED), claim=False))
    go(world)
    pulling = PodReport("p", waiting="ImagePullBackOff", waiting_message='Back-off pulling image "x"')
    seen = observed(world)
    decision = plan(run_of(world), replace(seen, pods={**seen.pods, "engine-check": (pulling,)}), NOW)
    assert condition(decision.status, "Stalled") == ("True", "ImagePullFailed")
    assert stage(world, "training").state == "Pending"


def test_a_check_whose_result_names_no_engine_has_no_proof() -> None:
    world = started(World.new(spec(image=PINNED), claim=False))
    empty = Result("engine-check", "1.1", world.inputs_digest(CHECK), "Succeeded", outputs=encode(EngineCheckOutputs("", "")))
    world.finish(CHECK, 0, termination_message(empty))
    go(world)
    assert (stage(world, "engine-check").state, stage(world, "engine-check").reason) == ("Retrying", "ProofMissing")
    assert stage(world, "engine-check").message == "no engine was chosen."


def test_a_success_is_recorded_by_the_digest_of_the_image() -> None:
    (record,) = checked(World.new(spec(image=PINNED), claim=False))
    assert record["immutable"] is True
    assert record["data"] == {
        "image": PINNED, "imageDigest": DIGEST, "engine": "training-hub", "reason": "the image has it", "versions": "training-hub 0.9.0",
    }  # fmt: skip
    metadata = record["metadata"]
    assert metadata["labels"] == {"finetunerun.io/stage": "engine-check", "app.kubernetes.io/managed-by": "finetune-operator"}
    assert "ownerReferences" not in metadata


@pytest.mark.parametrize(
    ("image", "report", "digest"),
    [
        ("registry.example.com/train:1", {"image_id": f"docker-pullable://registry.example.com/train@{OTHER}"}, OTHER),
        (None, {"image": PINNED, "image_id": f"registry.example.com/train@{OTHER}"}, DIGEST),
        (None, {"image": "train:1", "image_id": DIGEST}, None),
        ("registry.example.com/train:1", {}, None),
    ],
)  # fmt: skip
def test_the_kubelet_identifies_an_image_whose_name_has_no_digest(image: str | None, report: dict[str, str], digest: str) -> None:
    training = {"image": image} if image else {}
    records = checked(World.new(spec(**training), claim=False), **report)
    assert [record["data"]["imageDigest"] for record in records] == ([digest] if digest else [])


def test_a_long_result_is_cut() -> None:
    world = started(World.new(spec(image=PINNED), claim=False))
    found = EngineCheckOutputs("portable", "r" * 700, {f"package-{number}": "1.0.0" for number in range(60)})
    result = Result("engine-check", "1.1", world.inputs_digest(CHECK), "Succeeded", outputs=encode(found))
    world.finish(CHECK, 0, termination_message(result))
    go(world)
    (record,) = (item for ref, item in world.objects.items() if ref.name.startswith("finetune-engine-check-"))
    assert max(map(len, record["data"].values())) == 512


@pytest.mark.parametrize("named_by", ["run", "runtime"])
def test_a_known_image_is_not_checked_again(named_by: str) -> None:
    world = World.new(spec(**({"image": PINNED} if named_by == "run" else {})), claim=False)
    world.objects[RUNTIME] = runtime(PINNED)
    (record,) = checked(world, image=PINNED)
    later = next_run(world, spec(**({"image": PINNED} if named_by == "run" else {}), learningRate=0.5, seed=7))
    found = stage(later, "engine-check")
    assert (found.state, found.reason, found.reused, found.child_name) == ("Succeeded", "Reused", True, "")
    assert found.message == (
        f"training image {DIGEST}: it was checked before with the same values; ConfigMap {record['metadata']['name']} has the result"
    )
    assert CHECK not in later.objects
    later_settled(later)


def later_settled(world: World) -> None:
    """The run continues to its end without a check."""
    for _ in range(14):
        for ref in world.active():
            world.finish(ref)
        go(world)
    assert world.run["status"]["phase"] == "Succeeded"
    assert world.run["status"]["usage"]["gpuSeconds"] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"image": f"registry.example.com/train@{OTHER}"}, {"image": "registry.example.com/train:1"}, {"engine": "training-hub"},
        {"algorithm": "osft"}, {"gpusPerWorker": 2}, {"scheduler": "linear"}, {"sft": {"sharding": "FULL_SHARD"}},
        {"env": [{"name": "PYTHONPATH", "value": "/extra"}]},
        {"volumes": [{"name": "extra", "emptyDir": {}}], "volumeMounts": [{"name": "extra", "mountPath": "/extra"}]},
    ],
    ids=str,
)  # fmt: skip
def test_another_image_or_value_that_decides_is_checked(changed: Object) -> None:
    world = World.new(spec(image=PINNED), claim=False)
    assert checked(world)
    later = next_run(world, spec(**{"image": PINNED, **changed}))
    assert CHECK in later.objects


def test_another_release_of_the_training_program_is_checked() -> None:
    world = World.new(spec(image=PINNED), claim=False)
    assert checked(world)
    later = World.new(spec(image=PINNED), claim=False)
    later.objects |= {ref: item for ref, item in world.objects.items() if ref.name.startswith("finetune-engine")}
    assert CHECK in started(later, replace(PLACE, bundle_digest="f" * 64)).objects


@pytest.mark.parametrize("damage", ["labels", "data", "annotations", "immutable", "ownerReferences", "key"])
def test_a_record_that_is_not_ours_is_ignored(damage: str) -> None:
    world = World.new(spec(image=PINNED), claim=False)
    (record,) = checked(world)
    ref = next(ref for ref in world.objects if ref.name.startswith("finetune-engine-check-"))
    forged = copy.deepcopy(record)
    if damage == "data":
        forged["data"]["engine"] = "portable"
    elif damage == "immutable":
        forged["immutable"] = False
    elif damage == "ownerReferences":
        forged["metadata"][damage] = [{"kind": "Job", "name": "a", "uid": "u"}]
    elif damage == "key":
        forged["metadata"]["annotations"]["finetunerun.io/inputs-digest"] = "0" * 64
    else:
        forged["metadata"][damage] = {}
    world.objects[ref] = forged
    assert CHECK in next_run(world).objects


def test_a_content_that_was_not_read_is_not_trusted() -> None:
    world = World.new(spec(image=PINNED), claim=False)
    checked(world)
    later = World.new(spec(image=PINNED), claim=False)
    later.objects |= {ref: item for ref, item in world.objects.items() if ref.name.startswith("finetune-engine")}
    go(later)
    seen = observed(later)
    others = {ref: content for ref, content in seen.contents.items() if not ref.name.startswith("finetune-engine")}
    decision = plan(run_of(later), replace(seen, contents=others), NOW)
    assert CHECK in [effect.ref for effect in decision.effects if isinstance(effect, Create)]


@pytest.mark.parametrize("named", [None, "", "train:1", {"spec": {}}])
def test_a_runtime_without_a_digest_means_a_check(named: Any) -> None:
    world = World.new(spec(), claim=False)
    if isinstance(named, str):
        world.objects[RUNTIME] = runtime(named)
    elif named is not None:
        world.objects[RUNTIME] = {**runtime(""), **named}
    assert CHECK in started(world).objects


def test_lookups_are_read_only_until_the_stage_starts() -> None:
    world = World.new(spec(), claim=False)
    world.objects[RUNTIME] = runtime(PINNED)
    assert RUNTIME not in needs(run_of(world), PLACE)
    go(world)
    assert RUNTIME in needs(run_of(world), PLACE)
    (record,) = set(lookups(run_of(world), {RUNTIME: runtime(PINNED)})) - {RUNTIME}
    assert record.name.startswith("finetune-engine-check-")
    edit(world, suspend=True)
    assert RUNTIME not in needs(run_of(world), PLACE)
    edit(world, suspend=False)
    started(world)
    assert RUNTIME not in needs(run_of(world), PLACE)
    skipped = started(World.new(spec(gpusPerWorker=0), claim=False))
    assert RUNTIME not in needs(run_of(skipped), PLACE)


def test_no_read_is_added_for_a_run_without_the_stage() -> None:
    """One that an earlier release started."""
    world = World.new(spec(), claim=False)
    go(world)
    stages = [entry for entry in world.run["status"]["stages"] if entry["name"] != "engine-check"]
    world.write_status({**world.run["status"], "stages": stages})
    assert lookups(run_of(world), {}) == ()
    assert lookups(Run.parse({**world.run, "status": {}}), {}) == ()


@pytest.mark.parametrize(("first", "repeated"), [("training", True), ("dataset", True), ("evaluation", False)])
def test_a_rerun_of_training_repeats_the_check(first: str, repeated: bool) -> None:
    world = World.new(spec(), claim=False)
    for _ in range(14):
        go(world)
        for ref in world.active():
            world.finish(ref)
    assert world.run["status"]["phase"] == "Succeeded"
    edit(world, rerun={"id": "again", "from": first})
    for _ in range(3):
        go(world)
    assert (Ref(TRAINJOB, "demo-engine-2-1") in world.objects) is repeated
    assert stage(world, "engine-check").state == ("Running" if repeated else "Succeeded")


def document(training: Object, **sections: Object) -> Object:
    """The inputs of the check."""
    world = World.new({**spec(**training), **sections}, claim=False)
    go(world)
    inputs: Object = encode(GRAPH.programs["engine-check"].inputs(run_of(world)))
    return inputs


def test_runs_that_differ_in_other_values_have_the_same_document() -> None:
    sweep = {"epochs": 3, "learningRate": 0.1, "effectiveBatchSize": 8, "maxSeqLen": 64, "seed": 1, "unmask": True}
    assert document(sweep) == document({})
    assert document({"algorithm": "osft", "osft": {"unfreezeRankRatio": 0.3}})["training"]["osft"]["unfreezeRankRatio"] == 0.5
    assert document({"algorithm": "osft", "osft": {"unfreezeRankRatio": 1}})["training"]["osft"]["unfreezeRankRatio"] == 1
    lora = document({"algorithm": "lora", "lora": {"rank": 8, "quantization": "4bit"}})["training"]["lora"]
    assert (lora["quantization"], lora["rank"]) == ("4bit", 16)


def test_the_document_has_the_fields_that_a_person_set_and_an_engine_may_reject() -> None:
    training = {"learningRate": 0.1, "scheduler": "linear", "schedulerArgs": {"a": 1}, "sft": {"sharding": "FULL_SHARD"}}
    found = document(training, model={"uri": "org/model", "trustRemoteCode": True})
    assert found["explicit"] == [
        "model.trustRemoteCode", "training.scheduler", "training.schedulerArgs.a", "training.sft.sharding",
    ]  # fmt: skip
    assert found["gpus"] == 1
    assert document({})["explicit"] == []
