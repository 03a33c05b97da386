"""TrainJobs as golden files: each algorithm, for each Trainer, with none and with all of the fields of its pods."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.documents import DOCUMENT_DIGEST_VARIABLE, SECRETS_VARIABLE
from finetune_contract.progress import METRICS_PORT_VARIABLE
from finetune_contract.workspace import Attempt
from finetune_operator.api.kinds import TRAINJOB
from finetune_operator.core.decision import Create
from finetune_operator.core.manifests.bootstrap import BOOTSTRAP
from finetune_operator.core.manifests.trainjob import trainjob
from finetune_operator.core.naming import TRAINJOB_NAME_LIMIT, child_name
from finetune_operator.core.observation import Observed, Rejection, child_ref
from finetune_operator.core.plan import plan
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Trainer
from finetune_operator.core.stages import GRAPH
from golden import FOLDER, assert_golden
from unit.core.passes import condition
from unit.core.test_manifests import CLUSTER
from world import NOW, World

Object = dict[str, Any]

TRAINERS = {
    "2.1": Trainer("podTemplateOverrides", pod_security=False, grace_period=False),
    "2.2": Trainer("runtimePatches", pod_security=True, grace_period=False),
    "2.3": Trainer("runtimePatches", pod_security=True, grace_period=True),
}
WHOLE: Object = {
    "image": "registry.example.com/train@sha256:1", "imagePullSecrets": [{"name": "pull"}], "workers": 2, "gpusPerWorker": 4,
    "processesPerWorker": 2, "resources": {"cpu": "8", "memory": "64Gi", "ephemeralStorage": "100Gi"}, "sharedMemory": "16Gi",
    "env": [
        {"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "GREETING", "value": "sh -c 'echo $(HF_TOKEN)'; `id`"},
        {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key", "optional": True}}},
    ],
    "volumes": [
        {"name": "extra", "persistentVolumeClaim": {"claimName": "extra", "readOnly": True}},
        {"name": "settings", "configMap": {"name": "settings"}}, {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    ],
    "volumeMounts": [
        {"name": "extra", "mountPath": "/extra", "subPath": "models", "readOnly": True}, {"name": "settings", "mountPath": "/settings"},
        {"name": "keys", "mountPath": "/keys", "readOnly": True}, {"name": "fast", "mountPath": "/fast"},
    ],
    "placement": {
        "nodeSelector": {"nvidia.com/gpu.present": "true"}, "labels": {"team": "a"}, "annotations": {"note": "b"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
        "affinity": {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}
            ]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"team": "b"}}, "topologyKey": "kubernetes.io/hostname"}
            ]},
        },
    },
}  # fmt: skip
"""Every field of ``training`` that affects pods."""


def specification(algorithm: str, whole: bool) -> Object:
    """A run that sets none or all of the fields of its training pods."""
    spec: Object = {"dataset": {"uri": "org/data"}, "training": {"algorithm": algorithm, **(WHOLE if whole else {})}}
    return {**spec, "serviceAccountName": "runner"} if whole else spec


def job_of(spec: Object, trainer: Trainer, stage: str = "training") -> Object:
    """The TrainJob of a stage's first attempt. The digest of its inputs is made up: what they are is another test's business."""
    world = World.new(spec, claim=False)
    place = replace(CLUSTER, fs_group=1001) if "serviceAccountName" in spec else CLUSTER
    world.write_status(world.decide(settings=place).status)
    run, attempt = Run.parse(world.run), Attempt(1, 1)
    record = StageStatus(
        stage, "Running", attempt.number, child_name=child_name(run.name, stage, attempt, TRAINJOB_NAME_LIMIT),
        inputs_digest="d" * 64,
    )  # fmt: skip
    return trainjob(run, record, GRAPH.programs[stage].pod(run), trainer)


def pod_of(job: Object) -> tuple[Object, Object]:
    """The pod template that a TrainJob lays over its runtime's, and its container in it."""
    spec = job["spec"]
    if "podTemplateOverrides" in spec:
        (template,) = spec["podTemplateOverrides"]
    else:
        (patch,) = spec["runtimePatches"]
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        template = replicated["template"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return template, container


CASES = [*product(("sft", "osft", "lora"), ("minimal", "whole"), TRAINERS)]


@pytest.mark.parametrize(("algorithm", "extent", "release"), CASES)
def test_trainjobs_are_those_of_the_golden_files(algorithm: str, extent: str, release: str) -> None:
    job = job_of(specification(algorithm, extent == "whole"), TRAINERS[release])
    assert_golden(f"trainjobs/{algorithm}-{extent}-{release}.yaml", job)


@pytest.mark.parametrize("release", TRAINERS)
def test_engine_checks_are_those_of_the_golden_files(release: str) -> None:
    job = job_of(specification("sft", True), TRAINERS[release], "engine-check")
    assert_golden(f"trainjobs/engine-check-{release}.yaml", job)


def test_there_is_no_other_golden_trainjob() -> None:
    expected = {"-".join(case) for case in CASES} | {f"engine-check-{release}" for release in TRAINERS}
    assert {path.stem for path in (FOLDER / "trainjobs").iterdir()} == expected


@pytest.mark.parametrize("release", TRAINERS)
def test_an_engine_check_has_the_pod_of_its_training_without_gpus(release: str) -> None:
    check, training = (job_of(specification("sft", True), TRAINERS[release], stage) for stage in ("engine-check", "training"))
    assert {key: check["spec"]["trainer"][key] for key in ("image", "command", "numNodes", "numProcPerNode")} == {
        "image": training["spec"]["trainer"]["image"], "command": training["spec"]["trainer"]["command"], "numNodes": 1,
        "numProcPerNode": 1,
    }  # fmt: skip
    amounts = {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "0"}
    assert check["spec"]["trainer"]["resourcesPerNode"] == {"requests": amounts, "limits": amounts}
    assert check["spec"]["runtimeRef"] == training["spec"]["runtimeRef"]
    assert list(check["metadata"]["annotations"]) == ["finetunerun.io/inputs-digest"], "OpenShift AI would show it as a training"
    own, theirs = ({one["name"]: one for one in job["spec"]["trainer"]["env"]} for job in (check, training))
    # The check is skipped with these settings, so it has no document.
    assert set(theirs) - set(own) == {METRICS_PORT_VARIABLE, "FINETUNE_PROCESSES", DOCUMENT_DIGEST_VARIABLE, "FINETUNE_READS"}
    assert {name for name in own if own[name] != theirs[name]} == {"FINETUNE_CONFIG", "FINETUNE_GPUS"}
    assert own["FINETUNE_GPUS"]["value"] == "0"
    (own_pod, own_container), (pod, container) = pod_of(check), pod_of(training)
    for field in ("nodeSelector", "tolerations", "affinity", "imagePullSecrets", "serviceAccountName"):
        assert own_pod["spec"][field] == pod["spec"][field]
    for mine, all_, other in (
        (own_pod["spec"]["volumes"], pod["spec"]["volumes"], {"workspace", "training-folder", "documents", "shared-memory"}),
        (own_container["volumeMounts"], container["volumeMounts"], {"workspace", "training-folder", "shared-memory"}),
    ):
        assert [entry for entry in all_ if entry not in mine] == [entry for entry in all_ if entry["name"] in other]


@pytest.mark.parametrize("release", TRAINERS)
def test_a_training_without_gpus_requests_none_even_if_its_runtime_has_some(release: str) -> None:
    spec = specification("sft", False)
    spec["training"] |= {"gpusPerWorker": 0, "resources": {"cpu": "1", "memory": "2Gi"}}
    amounts = {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "0"}
    assert job_of(spec, TRAINERS[release])["spec"]["trainer"]["resourcesPerNode"] == {"requests": amounts, "limits": amounts}


@pytest.mark.parametrize("release", TRAINERS)
def test_the_pods_are_the_same_on_every_trainer_as_far_as_it_lets_them_be(release: str) -> None:
    newest, this = (pod_of(job_of(specification("sft", True), TRAINERS[name])) for name in ("2.3", release))
    assert this[0]["metadata"] == newest[0]["metadata"]
    grace, security = "terminationGracePeriodSeconds", "securityContext"
    missing = {"2.1": ({grace, security}, {security}), "2.2": ({grace}, set())}
    of_pod, of_container = missing.get(release, (set(), set()))
    assert set(newest[0]["spec"]) - set(this[0]["spec"]) == of_pod
    assert set(newest[1]) - set(this[1]) == of_container
    assert {key: value for key, value in this[0]["spec"].items() if key != "containers"}.items() <= newest[0]["spec"].items()


@pytest.mark.parametrize("release", sorted(TRAINERS))
def test_openshift_ai_polls_the_port_that_the_program_serves(release: str) -> None:
    job = job_of(specification("osft", False), TRAINERS[release])
    tracking = {name.split("/")[1]: value for name, value in job["metadata"]["annotations"].items() if "opendatahub" in name}
    assert tracking == {"progression-tracking": "true", "metrics-port": "28080", "metrics-poll-interval": "30s"}
    variables = [entry for entry in job["spec"]["trainer"]["env"] if entry["name"] == METRICS_PORT_VARIABLE]
    assert variables == [{"name": METRICS_PORT_VARIABLE, "value": "28080"}]


@pytest.mark.parametrize(
    ("trainer", "reason"),
    [
        (None, "TrainerNotInstalled"), (Trainer("podSpecOverrides", False, False), "TrainerUnsupported"),
        (Trainer("unknown", False, False), "TrainerUnsupported"),
    ],
)  # fmt: skip
def test_with_an_unsupported_trainer_the_run_waits_and_reports_why(trainer: Trainer | None, reason: str) -> None:
    world = at_training()
    decision = world.decide(settings=replace(CLUSTER, trainer=trainer))
    assert decision.effects == ()
    assert condition(decision.status, "Stalled") == ("True", reason)


def test_messages_about_trainer_are_about_the_installed_version() -> None:
    world = at_training()
    for trainer, reason in ((None, "TrainerNotInstalled"), (Trainer("podSpecOverrides", False, False), "TrainerUnsupported")):
        decision = world.decide(settings=replace(CLUSTER, trainer=trainer))
        assert condition(decision.status, "Stalled") == ("True", reason)
        world.write_status(decision.status)


def test_a_trainer_that_was_exchanged_between_two_looks_costs_no_attempt() -> None:
    world = at_training()
    place = replace(CLUSTER, trainer=TRAINERS["2.1"])
    world.write_status(world.decide(settings=place).status)
    said = 'TrainJob in version "v1alpha1" cannot be handled as a TrainJob: strict decoding error: unknown field "spec.podTemplateOverrides"'
    rejected = {child_ref(Run.parse(world.run).stages["training"]): Rejection(said)}
    decision = plan(Run.parse(world.run), Observed(place, rejected=rejected), NOW)
    assert condition(decision.status, "Stalled") == ("True", "TrainerChanged")
    world.write_status(decision.status)
    (made,) = world.decide(settings=CLUSTER).effects
    assert isinstance(made, Create)
    assert "runtimePatches" in made.manifest["spec"]
    assert made.manifest["metadata"]["name"] == "demo-train-1-1"


def at_training() -> World:
    """A run whose next pass begins its training."""
    world = World.new({"dataset": {"uri": "org/data"}}, claim=False)
    for _ in range(9):
        decision = world.decide(settings=CLUSTER)
        if any(isinstance(effect, Create) and effect.ref.kind == TRAINJOB for effect in decision.effects):
            return world
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in world.active():
            world.finish(ref)
    raise AssertionError(world.run["status"]["stages"])


anything = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    value=anything, note=anything, image=st.from_regex(r"[a-z]{1,9}(:[a-z]{1,9})?", fullmatch=True),
    release=st.sampled_from(sorted(TRAINERS)),
)  # fmt: skip
def test_nothing_that_a_user_wrote_is_in_a_command(value: str, note: str, image: str, release: str) -> None:
    training = {"image": image, "env": [{"name": "A", "value": value}], "placement": {"annotations": {"note": note}}}
    job = job_of({"dataset": {"uri": "org/data"}, "training": training}, TRAINERS[release])
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["python", "-c", BOOTSTRAP, "/opt/finetune/training.pyz", CLUSTER.bundle_digest]
    assert "args" not in trainer
    template, container = pod_of(job)
    assert not {"command", "args", "env", "lifecycle"} & set(container)
    assert "initContainers" not in template["spec"]


@pytest.mark.parametrize(("algorithm", "extent", "release"), CASES)
def test_a_secret_is_only_ever_named(algorithm: str, extent: str, release: str) -> None:
    job = job_of(specification(algorithm, extent == "whole"), TRAINERS[release])
    for entry in job["spec"]["trainer"]["env"]:
        if (
            any(word in entry["name"] for word in ("TOKEN", "KEY", "SECRET", "PASSWORD"))
            and entry["name"] not in ("TOKENIZERS_PARALLELISM", SECRETS_VARIABLE)  # the second has names of variables
        ):
            assert set(entry) == {"name", "valueFrom"}, entry
            assert set(entry["valueFrom"]) == {"secretKeyRef"}
    assert "stringData" not in json.dumps(job)
