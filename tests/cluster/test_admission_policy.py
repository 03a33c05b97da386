"""The sample of an admission policy on a real API server: what it accepts, what it rejects, and its messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api import Api, RefusedError, eventually
from controlplane.cluster import ControlPlane

Object = dict[str, Any]
POLICY = Path(__file__).parents[2] / "manifests/samples/platform/admission-policy.yaml"
pytestmark = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)


def run(namespace: str, name: str = "a", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace}
    document = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata}
    return {**document, "spec": {"dataset": {"uri": "org/data"}, **spec}}


def defaults(namespace: str) -> Object:
    metadata = {"name": "finetune-defaults", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"spec.yaml": "training: {image: mine}"}}


def _for(namespace: str) -> list[Object]:
    """The sample for one namespace only, under names of its own: other tests run on the same API server."""
    documents = list(yaml.safe_load_all(POLICY.read_text(encoding="utf-8")))
    for one in documents:
        one["metadata"]["name"] += f"-{namespace}"
        if one["kind"] == "ValidatingAdmissionPolicyBinding":
            spec = one["spec"]
            spec["policyName"] += f"-{namespace}"
            here = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace]}
            spec["matchResources"]["namespaceSelector"]["matchExpressions"].append(here)
    return documents


def await_rejection(api: Api, document: Object, words: str, what: str) -> None:
    """Policies come into force in their own time."""

    def rejected() -> bool:
        path = api.path(document["apiVersion"], document["kind"], None, document["metadata"]["namespace"])
        try:
            api.call("POST", path, document, dryRun="All")
        except RefusedError as error:
            if words in str(error):
                return True
            raise
        return False

    eventually(rejected, what)


@pytest.fixture
def limited(api: Api, namespace: str) -> Iterator[str]:
    """A namespace with a run that is older than the policy, in which the policy is in force."""
    api.create(run(namespace, "old", training={"workers": 64}))
    documents = _for(namespace)
    for document in documents:
        api.create(document)
    probe = run(namespace, "probe", training={"workers": 99})
    await_rejection(api, probe, "are more than the 8 GPUs", "the policy is in force")
    yield namespace
    for document in reversed(documents):
        api.delete(document)


REFUSED: dict[str, tuple[Object, str]] = {
    "an image of elsewhere": (
        {"training": {"image": "docker.io/mine:1"}},
        "spec.training.image: docker.io/mine:1 is not allowed here; remove it, or use an image of registry.example.com/",
    ),
    "another runtime": (
        {"training": {"runtimeRef": "mine"}},
        "spec.training.runtimeRef: mine is not allowed here; remove it, or use one of training-hub, torch-distributed",
    ),
    "an account": (
        {"serviceAccountName": "builder"},
        "spec.serviceAccountName: builder is not allowed here; remove it, or use one of finetune-stage",
    ),
    "another model": (
        {"model": {"uri": "hf://other/model"}},
        "spec.model.uri: other/model is not allowed here; use a model of Qwen/, ibm-granite/",
    ),
    "too many GPUs": (
        {"training": {"workers": 3, "gpusPerWorker": 4}},
        "spec.training: 3 workers with 4 GPUs each are more than the 8 GPUs that are allowed here; lower workers or gpusPerWorker",
    ),
    "variables": (
        {"training": {"env": [{"name": "A", "value": "b"}]}},
        (
            "spec.training.env: it is not allowed here; remove it, or ask for its name in the variable allowed of the"
            " ValidatingAdmissionPolicy"
        ),
    ),
    "code of the model": (
        {"model": {"uri": "Qwen/Qwen3-4B", "trustRemoteCode": True}},
        "spec.model.trustRemoteCode: it is not allowed here",
    ),
    "a Secret": (
        {"dataset": {"uri": "org/data", "secretRef": {"name": "of-others"}}},
        "spec.dataset.secretRef: it is not allowed",
    ),
    "a claim": ({"dataset": {"uri": "pvc://of-others/rows.jsonl"}}, "spec.dataset.uri of a claim: it is not allowed here"),
    "a claim for the workspace": ({"storage": {"claimName": "of-others"}}, "spec.storage.claimName: it is not allowed here"),
    "a queue": ({"queue": {"name": "of-others"}}, "spec.queue.name: it is not allowed here"),
    "too many GPUs by the preset": (
        {"training": {"algorithm": "sft", "gpusPerWorker": 4}},
        "spec.training: 4 workers with 4 GPUs each",
    ),
}
ALLOWED: dict[str, Object] = {
    "nothing": {},
    "everything": {
        "model": {"uri": "hf://Qwen/Qwen2.5-1.5B-Instruct"},
        "training": {"image": "registry.example.com/train@sha256:1", "runtimeRef": "torch-distributed", "workers": 2, "gpusPerWorker": 4},
    },
    "the account that is the default": {"serviceAccountName": "finetune-stage"},
    "no code of the model": {"model": {"uri": "Qwen/Qwen3-4B", "trustRemoteCode": False}},
    "resources": {"training": {"resources": {"cpu": "4"}}, "evaluation": {"gpus": 1, "taskFiles": {"name": "tasks"}}},
    "a model without a scheme": {"model": {"uri": "ibm-granite/granite-3.3-2b-instruct"}},
}  # fmt: skip


def test_rejected_objects_and_the_messages(api: Api, limited: str) -> None:
    for spec, words in REFUSED.values():
        with pytest.raises(RefusedError) as rejection:
            api.create(run(limited, **spec))
        assert str(rejection.value).startswith("HTTP 422: ")
        assert f"denied request: {words}" in str(rejection.value)
    for number, spec in enumerate(ALLOWED.values()):
        api.create(run(limited, f"allowed-{number}", **spec))


def test_an_older_run_can_be_controlled_but_not_changed(api: Api, limited: str) -> None:
    old = run(limited, "old")
    assert api.patch(old, {"spec": {"suspend": True}})["spec"]["suspend"] is True
    assert api.patch(old, {"status": {"phase": "Suspended"}}, "status")["status"]["phase"] == "Suspended"
    with pytest.raises(RefusedError, match="65 workers with 1 GPUs"):
        api.patch(old, {"spec": {"training": {"workers": 65}}})
    assert api.patch(old, {"spec": {"training": {"workers": 8}}})["spec"]["training"]["workers"] == 8


def test_a_label_frees_a_namespace(api: Api, limited: str) -> None:
    free = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": limited}}
    api.patch(free, {"metadata": {"labels": {"finetunerun.io/limits": "none"}}})
    eventually(lambda: bool(api.create(run(limited, "many", training={"workers": 64}))), "no limit holds")


def test_only_who_may_sets_the_defaults_of_a_namespace(api: Api, control_plane: ControlPlane, limited: str) -> None:
    def bind(role: str) -> None:
        group = "rbac.authorization.k8s.io"
        api.create({
            "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": role, "namespace": limited},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "mary"}],
        })  # fmt: skip

    bind("edit")
    mary = control_plane.client("mary", "mary")
    with Api(api.address, control_plane.authority.tls(mary)) as hers:
        words = (
            f"ConfigMap finetune-defaults: mary may not set the defaults of FineTuneRuns in namespace {limited}; set the fields"
        )
        await_rejection(hers, defaults(limited), words, "the policy is in force")
        hers.create({**defaults(limited), "metadata": {"name": "anything-else", "namespace": limited}})
        bind(f"finetunerun-defaults-setter-{limited}")
        eventually(lambda: bool(hers.create(defaults(limited))), "she may now")
