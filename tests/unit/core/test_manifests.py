"""Children as they are made: golden files of every kind, and what all of them have."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.api.kinds import JOB
from finetune_operator.core.decision import Create
from finetune_operator.core.images import OF_JOBS
from finetune_operator.core.manifests.pod import secrets
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.plan import plan
from finetune_operator.core.resolved_spec import SecretRef
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings, Trainer
from finetune_operator.core.stages import GRAPH
from golden import assert_golden
from unit.core.passes import run_of, world_at
from world import MINIMAL, NOW, World

CLUSTER = Settings(
    mode="cluster", operator_version="0.1.0", images={name: f"registry.example.com/{name}@sha256:1" for name in OF_JOBS},
    bundle_digest="e" * 64, bundle_archive="UEsFBg==", environment={"HF_ENDPOINT": "https://hub.example.com"},
    isolation="mounts",
)  # fmt: skip
PLACED: dict[str, Any] = {
    "placement": {
        "nodeSelector": {"nvidia.com/gpu.present": "true"}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "labels": {"team": "a"}, "annotations": {"note": "b"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}}},
    },
}  # fmt: skip
FULL: dict[str, Any] = {
    "dataset": {"uri": "org/data:config", "secretRef": {"name": "mine", "key": "TOKEN"}},
    "training": {
        "image": "registry.example.com/train:1", "imagePullSecrets": [{"name": "pull"}], "workers": 2, "gpusPerWorker": 4,
        "resources": {"ephemeralStorage": "10Gi"}, "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "volumes": [{"name": "extra", "persistentVolumeClaim": {"claimName": "extra"}}],
        "volumeMounts": [{"name": "extra", "mountPath": "/extra"}], **PLACED,
    },
    "evaluation": {
        "taskFiles": {"name": "tasks"}, "gpus": 1, "resources": {"cpu": 2, "memory": "8Gi"}, "secretRef": {"name": "mine"},
        "generation": {"temperature": 0.5, "topP": 0.9, "maxTokens": 10, "until": ["x"]}, "modelArgs": {"dtype": "bfloat16"},
        "placement": {**PLACED["placement"], "priorityClassName": "low"},
    },
    "registry": {"kind": "MLflow", "alias": "newest"},
    "serviceAccountName": "runner",
}  # fmt: skip


def made_by(spec: dict[str, Any], place: Settings = CLUSTER) -> dict[str, dict[str, Any]]:
    """Every object that a run makes on its way, by kind and stage."""
    world, made = World.new(spec, claim=False), {}
    world.run = {**world.run, "metadata": {**world.run["metadata"], "labels": {"finetunerun.io/experiment": "trial"}}}
    for _ in range(12):
        decision = plan(Run.parse(world.run), Observed(place), NOW) if "status" not in world.run else world.decide(settings=place)
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
            if isinstance(effect, Create):
                stage = effect.manifest["metadata"]["labels"]["finetunerun.io/stage"]
                made[f"{effect.manifest['kind']}-{stage}".lower()] = effect.manifest
        for ref in world.active():
            world.finish(ref)
    return made


GATED: dict[str, Any] = {
    "dataset": {"uri": "org/data"},
    "training": {"algorithm": "lora", "lora": {"rank": 8, "targetModules": ["q_proj"]}},
    "evaluation": {"tasks": []},
    "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "maxRegression": 0.1}]},
    "registry": {
        "address": "https://registry.example.com", "secretRef": {"name": "mine", "key": "token"}, "caRef": {"name": "corporate-ca"},
        "onExisting": "Fail",
    },
}  # fmt: skip
RUNS = {"gated": GATED, "minimal": {"dataset": {"uri": "org/data"}, "registry": {"kind": "MLflow"}}, "full": FULL}


@pytest.mark.parametrize("name", RUNS)
def test_children_are_those_of_the_golden_files(name: str) -> None:
    made = made_by(RUNS[name])
    assert set(made) == {
        *(("serviceaccount-account",) if name != "full" else ()), "persistentvolumeclaim-workspace", "configmap-inputs", "configmap-training", "job-dataset", "job-model", "job-tokenization",
        "trainjob-training", "job-evaluation", "job-registration", *(("job-baseline", "job-registry-check") if name == "gated" else ()),
    }  # fmt: skip
    for key, manifest in made.items():
        assert_golden(f"children/{name}/{key}.yaml", manifest)


def pods_of(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod template of a Job or TrainJob, and its container with the trainer's fields."""
    if manifest["kind"] == "Job":
        template: dict[str, Any] = manifest["spec"]["template"]
        return template, template["spec"]["containers"][0]
    patch = manifest["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    template = patch["template"]["spec"]["template"]
    trainer = manifest["spec"]["trainer"]
    return template, {**template["spec"]["containers"][0], "env": trainer["env"], "command": trainer["command"]}


@pytest.mark.parametrize("name", RUNS)
def test_what_every_pod_of_ours_has(name: str) -> None:
    for key, manifest in made_by(RUNS[name]).items():
        if not key.startswith(("job", "trainjob")):
            continue
        template, container = pods_of(manifest)
        assert {"finetunerun.io/run", "finetunerun.io/stage", "finetunerun.io/attempt", "app.kubernetes.io/managed-by"} <= set(
            template["metadata"]["labels"]
        )
        assert manifest["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is True
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        env = {entry["name"]: entry for entry in container["env"]}
        assert len(env) == len(container["env"])
        assert {
            "HOME",
            "USER",
            "TMPDIR",
            "HF_HOME",
            "XDG_CACHE_HOME",
            "HF_ENDPOINT",
            "FINETUNE_CONFIG",
            "FINETUNE_WORKSPACE",
        } <= set(env)
        assert not any(word in json.dumps(container["command"]) for word in ("sh -c", "bash"))
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in template["spec"]["volumes"]}


def test_the_group_of_volumes_is_that_of_the_configuration() -> None:
    made = made_by(RUNS["full"], replace(CLUSTER, fs_group=1001))
    for key, manifest in made.items():
        if key.startswith(("job", "trainjob")):
            template, _ = pods_of(manifest)
            assert (
                template["spec"]["securityContext"].items() >= {"fsGroup": 1001, "fsGroupChangePolicy": "OnRootMismatch"}.items()
            )
    older = Trainer("podTemplateOverrides", pod_security=False, grace_period=False)
    trainjob = made_by(RUNS["full"], replace(CLUSTER, fs_group=1001, trainer=older))["trainjob-training"]
    assert "fsGroup" not in json.dumps(trainjob), "there it is the runtime's"


MESH = {"sidecar.istio.io/inject": "false"}
META = {"pod_labels": MESH, "pod_annotations": {**MESH, "linkerd.io/inject": "disabled"}}
MESHLESS = replace(CLUSTER, engine_check=True, **META)


def metadata_of(placement: dict[str, Any] | None, place: Settings = MESHLESS) -> dict[str, dict[str, Any]]:
    """Labels and annotations of the pods of every stage, where training and evaluation have ``placement``."""
    placed = {"placement": placement} if placement else {}
    spec = {"dataset": {"uri": "org/d"}, "training": placed, "evaluation": {"tasks": [], "baseline": True, **placed}}
    made = made_by({**spec, "registry": {"kind": "MLflow", "onExisting": "Fail"}}, place)
    return {key: pods_of(made[key])[0]["metadata"] for key in made if key.startswith(("job", "trainjob"))}


def test_pods_of_every_stage_ask_meshes_not_to_inject() -> None:
    found = metadata_of(None)
    assert len(found) == len(GRAPH.programs)
    for metadata in found.values():
        assert metadata["labels"].items() >= MESH.items()
        assert metadata["annotations"] == META["pod_annotations"]


@pytest.mark.parametrize("group", ["labels", "annotations"])
def test_mesh_settings_of_a_run_override_the_configuration(group: str) -> None:
    metadata = metadata_of({group: {"sidecar.istio.io/inject": "true"}})
    for key in ("trainjob-training", "job-evaluation", "job-baseline"):
        assert metadata[key][group]["sidecar.istio.io/inject"] == "true"
        other = "annotations" if group == "labels" else "labels"
        assert "sidecar.istio.io/inject" not in metadata[key][other], "meshes would take that one"
        assert metadata[key]["annotations"]["linkerd.io/inject"] == "disabled"
    assert metadata["job-dataset"]["labels"]["sidecar.istio.io/inject"] == "false"


def test_what_is_configured_never_replaces_our_own_labels() -> None:
    place = replace(CLUSTER, pod_labels={"finetunerun.io/run": "x", "team": "a"})
    for metadata in metadata_of(None, place).values():
        assert (metadata["labels"]["finetunerun.io/run"], metadata["labels"]["team"]) == ("demo", "a")
        assert "annotations" not in metadata


def test_documents_hold_workspace_relative_paths_only_and_no_secret() -> None:
    documents = made_by(FULL)["configmap-inputs"]
    assert documents["immutable"] is True
    for text in documents["data"].values():
        assert "/workspace" not in text
        assert "TOKEN" not in text


def test_a_key_that_the_user_names_must_exist_and_the_standard_ones_need_not() -> None:
    (named,) = secrets(SecretRef("mine", "k"), ("hf-token", ("HF_TOKEN",)))
    assert named == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k", "optional": False}}}
    (standard,) = secrets(None, ("hf-token", ("HF_TOKEN",)))
    assert standard["valueFrom"]["secretKeyRef"] == {"name": "hf-token", "key": "HF_TOKEN", "optional": True}
    (renamed,) = secrets(SecretRef("mine"), ("hf-token", ("HF_TOKEN",)))
    assert renamed["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "HF_TOKEN", "optional": True}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("registry.models.svc", "http://registry.models.svc:8080"),
        ("registry.models.svc:9090", "http://registry.models.svc:9090"),
        ("http://registry.models.svc/base", "http://registry.models.svc:8080/base"),
        ("https://registry.example.com", "https://registry.example.com:443"),
        ("https://registry.example.com:8443", "https://registry.example.com:8443"),
    ],
)
def test_a_registry_has_a_scheme_and_a_port(address: str, url: str) -> None:
    made = made_by({**GATED, "registry": {"address": address}})
    assert json.loads(made["configmap-inputs"]["data"]["registration.json"])["inputs"]["address"] == url


def test_a_registry_without_a_bundle_needs_only_its_token() -> None:
    made = made_by({**GATED, "registry": {"address": "registry.models.svc", "port": 80}})
    container = made["job-registration"]["spec"]["template"]["spec"]["containers"][0]
    tokens = [entry for entry in container["env"] if entry["name"] == "REGISTRY_TOKEN"]
    assert tokens[0]["valueFrom"]["secretKeyRef"] == {"name": "registry-token", "key": "REGISTRY_TOKEN", "optional": True}
    assert not [mount for mount in container["volumeMounts"] if mount["name"] == "registry-ca"]


def test_an_older_trainer_gets_its_own_shape_and_only_what_it_takes() -> None:
    trainer = Trainer("podTemplateOverrides", pod_security=False, grace_period=False)
    older = made_by(FULL, replace(CLUSTER, trainer=trainer))["trainjob-training"]
    assert_golden("children/full/trainjob-training-2.1.yaml", older)
    newer = made_by(FULL)["trainjob-training"]
    assert {key: value for key, value in older["spec"].items() if key != "podTemplateOverrides"} == {
        key: value for key, value in newer["spec"].items() if key != "runtimePatches"
    }


def test_the_stage_that_a_rerun_names_is_done_again_whatever_is_known() -> None:
    world = World.new({**GATED, "registry": {"kind": "MLflow"}})
    for name in ("first", "second"):
        for _ in range(20):
            decision = world.decide(settings=CLUSTER)
            world.write_status(decision.status)
            for effect in decision.effects:
                world.apply_effect(effect)
            for ref in world.active():
                world.finish(ref)
        if name == "first":
            world.run["spec"]["rerun"] = {"id": "again", "from": "evaluation"}
            world.run["metadata"]["generation"] += 1
    again = {
        ref.name
        for ref, manifest in world.objects.items()
        if ref.kind.name == "Job"
        and any(entry["name"] == "FINETUNE_AGAIN" for entry in manifest["spec"]["template"]["spec"]["containers"][0]["env"])
    }
    assert again == {"demo-eval-2-1"}


def test_the_program_receives_the_names_of_variables_from_secrets() -> None:
    secret = {"name": "DB_PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    made = made_by({**RUNS["minimal"], "training": {"env": [secret, {"name": "A", "value": "b"}, {**secret, "name": "OTHER"}]}})
    variables = {one["name"]: one.get("value") for one in made["trainjob-training"]["spec"]["trainer"]["env"]}
    assert variables["FINETUNE_SECRETS"] == "DB_PASS,OTHER"
    job = made_by(RUNS["minimal"])["trainjob-training"]
    assert all(one["name"] != "FINETUNE_SECRETS" for one in job["spec"]["trainer"]["env"])


@pytest.mark.parametrize(("stage", "expected"), [("dataset", "2147483648"), ("model", "2147483648"), ("tokenization", None)])
def test_the_limit_of_the_caches_is_a_variable_of_the_stages_that_add_to_them(stage: str, expected: str | None) -> None:
    for cleanup, value in (({"cacheSize": "2Gi"}, expected), ({}, None)):
        world = world_at(stage, {**MINIMAL, "cleanup": cleanup})
        record = run_of(world).stages[stage]
        job = world.objects[Ref(JOB, record.child_name)]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert {entry["name"]: entry.get("value") for entry in container["env"]}.get("FINETUNE_CACHE_LIMIT") == value
