"""Which pods are tried before a run starts, and what becomes of the API server's answer. ``tests/reports/test_pods.py`` asks a real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.observation import Observed
from finetune_operator.core.plan import plan
from finetune_operator.core.preflight import Preflight, due, preflights, problems
from finetune_operator.core.run import Run
from world import NOW, SETTINGS, World

from .passes import condition, decide, edit, go, run_of

Object = dict[str, Any]
PLACED = {"placement": {"labels": {"a b": "x"}}}
LABELS = "spec.template.labels"


def tried(spec: Object, **settings: Any) -> list[str]:
    run = run_of(World.new({"dataset": {"uri": "/d.jsonl"}, **spec}))
    return [one.stage for one in preflights(run, replace(SETTINGS, **settings))]


@pytest.mark.parametrize(
    ("spec", "stages"),
    [
        ({}, []),
        ({"training": {"epochs": 3, "algorithm": "sft"}}, []),
        ({"training": PLACED}, ["training"]),
        ({"training": {"resources": {"memory": "1Gi"}}}, ["training"]),
        ({"training": {"volumeMounts": []}}, ["training"]),
        ({"training": {"image": "image"}}, ["training"]),
        ({"evaluation": PLACED}, ["evaluation"]),
        ({"evaluation": {**PLACED, "baseline": True}, "training": PLACED}, ["training", "evaluation"]),
        ({"evaluation": {**PLACED, "enabled": False}}, []),
        ({"training": {**PLACED, "engineArgs": {"a": 1}}}, []),
    ],
)
def test_the_pods_of_stages_that_carry_values_of_users_are_tried(spec: Object, stages: list[str]) -> None:
    assert tried(spec) == stages


def test_values_of_defaults_are_tried_too() -> None:
    assert tried({}, namespace_defaults={"training": PLACED}) == ["training"]
    assert tried({}, operator_defaults={"storage": {"claimName": "w"}, "evaluation": PLACED}) == ["evaluation"]


def test_what_is_tried_is_the_stages_pod_and_needs_no_right_but_to_create_jobs() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "training": PLACED})
    (one,) = preflights(run_of(world), SETTINGS)
    assert isinstance(one, Preflight)
    assert (one.manifest["kind"], set(one.manifest["metadata"])) == ("Job", {"name", "namespace", "labels"})
    assert one.manifest["metadata"]["name"] == "demo-train-1-1"
    assert one.manifest["spec"]["template"]["metadata"]["labels"]["a b"] == "x"


def test_a_run_is_tried_when_it_is_resolved_and_not_in_every_pass() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "evaluation": {"tasks": []}})
    assert due(run_of(world))
    assert not due(replace(run_of(world), deleting=True))
    edit(world, suspend=True)
    assert not due(run_of(world))
    edit(world, suspend=False)
    go(world)
    assert not due(run_of(world))
    assert preflights(run_of(world), SETTINGS) == ()
    world.settle()
    assert run_of(world).ended
    assert not due(run_of(world))
    edit(world, rerun={"id": "again", "from": "training"})
    assert due(run_of(world))
    go(world)
    assert not due(run_of(world))


def test_a_run_that_was_rejected_is_retried_when_it_is_edited() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "training": PLACED, "evaluation": {"tasks": []}})
    go(world, invalid={"training": [(LABELS, "Invalid value")]})
    assert condition(world.run["status"], "Stalled") == ("True", "InvalidSpec")
    assert not due(run_of(world))
    edit(world, training={"placement": {"labels": {"a": "x"}}})
    assert due(run_of(world))
    go(world)
    assert run_of(world).started


ERRORS = {
    "an invalid pod": (422, 'Job.batch "j" is invalid', [("spec.x", "Invalid value")], [("spec.x", "Invalid value")]),
    "a policy, told as invalid": (422, "jobs.batch \"j\" is forbidden: ValidatingAdmissionPolicy 'p' denied request", [("", "no")], []),
    "a webhook, told as invalid": (422, 'admission webhook "w" denied the request: no', [], []),
    "a webhook": (403, 'admission webhook "w" denied the request: no', [], []),
    "a webhook that takes no dry run": (400, 'admission webhook "w" does not support dry run', [], []),
    "a field that the server does not know": (
        400, 'Job in version "v1" cannot be handled as a Job: strict decoding error: unknown field "spec.x"', [], [],
    ),
    "a number that is too large": (
        400, 'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal number 1e30 into int64', [],
        [("", "json: cannot unmarshal number 1e30 into int64")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "message", "causes", "found"), ERRORS.values(), ids=ERRORS)
def test_only_what_is_invalid_counts(code: int, message: str, causes: Any, found: Any) -> None:
    assert problems(code, message, causes) == found


CONTAINER = "spec.template.spec.containers[0]"
FIELDS = {
    "spec.template.labels": "placement.labels",
    "spec.template.metadata.annotations": "placement.annotations",
    "spec.template.annotations[a/b]": "placement.annotations[a/b]",
    "spec.template.spec.nodeSelector": "placement.nodeSelector",
    "spec.template.spec.tolerations[1].value": "placement.tolerations[1].value",
    "spec.template.spec.affinity.nodeAffinity.x[0].y": "placement.affinity.nodeAffinity.x[0].y",
    "spec.template.spec.imagePullSecrets[0].name": "imagePullSecrets[0].name",
    f"{CONTAINER}.resources.limits[memory]": "resources.memory",
    f"{CONTAINER}.resources.requests[cpu]": "resources.cpu",
    f"{CONTAINER}.resources.requests[ephemeral-storage]": "resources.ephemeralStorage",
    f"{CONTAINER}.resources.requests": "resources.requests",
    f"{CONTAINER}.image": "image",
    "spec.template.spec.volumes[5].name": "volumes[0].name",
    "spec.template.spec.volumes[3].emptyDir.sizeLimit": "sharedMemory",
    f"{CONTAINER}.volumeMounts[6].mountPath": "volumeMounts[1].mountPath",
    f"{CONTAINER}.volumeMounts.subPath": "volumeMounts.subPath",
}  # fmt: skip


@pytest.mark.parametrize(("path", "field"), FIELDS.items(), ids=FIELDS.values())
def test_a_path_in_the_pod_is_reported_as_the_field_of_the_run(path: str, field: str) -> None:
    spec = {
        "volumes": [{"name": "a", "emptyDir": {}}], "sharedMemory": "1Gi",
        "volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}],
    }  # fmt: skip
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "training": spec})
    status = decide(world, invalid={"training": [(path, "Invalid value"), (path, "Invalid value")]}).status
    assert status["failure"]["message"] == f"spec.training.{field}: Invalid value; correct it."


def test_a_path_that_is_not_a_field_is_reported_unchanged() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "evaluation": {"tasks": [], "taskFiles": {"name": "t"}}})
    causes = [(f"{CONTAINER}.env[0].name", "odd"), ("spec.template.spec.volumes[0].name", "odd"), ("", "json: no")]
    causes += [("spec.template.spec.volumes[3].configMap.name", "odd")]
    status = decide(world, invalid={"evaluation": causes}).status
    assert status["failure"]["message"] == (
        f"spec.evaluation: its pods are not valid: {CONTAINER}.env[0].name: odd; spec.evaluation: its pods are not valid: "
        "spec.template.spec.volumes[0].name: odd; spec.evaluation: its pods are not valid: json: no (and 1 more); correct it."
    )
    status = decide(world, invalid={"evaluation": causes[3:]}).status
    assert status["failure"]["message"] == "spec.evaluation.taskFiles: odd; correct it."


def test_a_rerun_is_tried_too() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "training": PLACED, "evaluation": {"tasks": []}})
    world.settle()
    edit(world, rerun={"id": "again", "from": "training"})
    assert [one.stage for one in preflights(Run.parse(world.run), SETTINGS)] == ["training"]


@pytest.mark.parametrize(
    ("layer", "place"),
    [("namespace_defaults", "ConfigMap finetune-defaults, "), ("operator_defaults", "the operator's configuration, defaults.")],
)
def test_a_value_of_defaults_is_reported_with_its_location(layer: str, place: str) -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}}, claim=False)
    settings = replace(SETTINGS, **{layer: {"training": PLACED}})
    observed = Observed(settings, invalid={"training": [(LABELS, "Invalid value")]})
    status = plan(run_of(world), observed, NOW).status
    assert status["failure"]["message"] == f"{place}training.placement.labels: Invalid value; correct it."


@pytest.mark.parametrize(("training", "image"), [({"image": "mine:1"}, "mine:1"), (PLACED, "image-of-the-runtime")])
def test_a_training_pod_is_tried_with_the_image_of_the_run(training: Object, image: str) -> None:
    run = run_of(World.new({"dataset": {"uri": "/d.jsonl"}, "training": training}))
    (tried_pod,) = preflights(run, SETTINGS)
    assert tried_pod.manifest["spec"]["template"]["spec"]["containers"][0]["image"] == image
