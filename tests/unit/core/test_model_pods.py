"""Pods of stage *model*: Secrets, CA bundle and claim, by the location of the base model."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_operator.api.kinds import CLAIM
from finetune_operator.core.blockers import unexplained
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.observation import Ref
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.run import Run
from finetune_operator.core.stages import GRAPH
from world import NOW, SETTINGS, World

from .passes import observed, run_of, world_at
from .test_manifests import CLUSTER

IMAGE = "oci://quay.io/team/model:1"
S3_KEYS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_S3_ENDPOINT", "AWS_DEFAULT_REGION"]


def run_with(model: dict[str, Any]) -> Run:
    """A run on a cluster that has been resolved."""
    spec = {"dataset": {"uri": "org/data"}, "model": model}
    resolved = resolve(spec, CLUSTER)
    assert not isinstance(resolved, SpecRejection), resolved
    return Run.parse({**World.new().run, "spec": spec, "status": {"resolved": resolved, "round": 1}})


def needs(model: dict[str, Any]) -> PodNeeds:
    return GRAPH.programs["model"].pod(run_with(model))


def document(model: dict[str, Any]) -> Any:
    return encode(GRAPH.programs["model"].inputs(run_with(model)))


def secrets(model: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """The variables from Secrets: name, Secret, key, and whether they are optional."""
    found = [(entry["name"], entry["valueFrom"]["secretKeyRef"]) for entry in needs(model).environment if "valueFrom" in entry]
    return [(name, source["name"], source["key"], source["optional"]) for name, source in found]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("org/model", [("HF_TOKEN", "hf-token", "HF_TOKEN", True)]),
        ("s3://models/llama/", [(name, "s3-secret", name, True) for name in S3_KEYS]),
        ("pvc://claim/llama", []),
        (
            IMAGE,
            [
                ("FINETUNE_PULL_SECRET", "oci-pull-secret-model-download", ".dockerconfigjson", True),
                ("OCI_PULL_SECRET_MODEL_DOWNLOAD", "oci-pull-secret-model-download", "OCI_PULL_SECRET_MODEL_DOWNLOAD", True),
            ],
        ),
    ],
)
def test_each_location_gets_its_own_credentials(uri: str, expected: list[tuple[str, str, str, bool]]) -> None:
    assert secrets({"uri": uri}) == expected


def test_secrets_that_the_run_names() -> None:
    assert secrets({"uri": "s3://models/llama/", "secretRef": {"name": "mine"}}) == [
        (name, "mine", name, True) for name in S3_KEYS
    ]
    assert secrets({"uri": "org/model", "secretRef": {"name": "mine", "key": "k"}}) == [("HF_TOKEN", "mine", "k", False)]
    assert secrets({"uri": IMAGE, "pullSecretRef": {"name": "mine"}}) == [
        ("FINETUNE_PULL_SECRET", "mine", ".dockerconfigjson", False)
    ], "a Secret of another type has no such key: the pod waits, and the run reports it"


def test_a_bundle_and_a_claim_are_mounted() -> None:
    found = needs({"uri": IMAGE, "caRef": {"name": "ca"}})
    assert {"name": "FINETUNE_SOURCE_CA", "value": "/etc/finetune-source-ca/ca.crt"} in found.environment
    assert found.mounts == ({"name": "source-ca", "mountPath": "/etc/finetune-source-ca", "readOnly": True},)
    found = needs({"uri": "pvc://models/llama/8b"})
    assert found.environment == ({"name": "FINETUNE_CLAIMS", "value": "/mnt/claims"},)
    assert found.volumes == ({"name": "claim-0", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},)
    assert found.mounts == ({"name": "claim-0", "mountPath": "/mnt/claims/models", "readOnly": True},)
    assert found.resources == needs({"uri": "org/model"}).resources


def test_the_server_is_an_input_of_s3_only() -> None:
    server = {"endpoint": "https://minio.example.com", "region": "eu-west-1"}
    found = document({"uri": "s3://b/x", **server})
    assert {key: found[key] for key in server} == server
    assert not document({"uri": "org/model", **server}).keys() & server.keys(), "a default of the namespace"


def test_events_of_the_claim_are_read() -> None:
    world = world_at("model")
    world.run["status"]["resolved"]["spec"]["model"]["uri"] = "pvc://models/llama"
    pods = {"model": (PodReport("p", unschedulable="pod has unbound immediate PersistentVolumeClaims"),)}
    expected = (Ref(CLAIM, "workspace"), Ref(CLAIM, "models"))
    assert set(unexplained(run_of(world), observed(world).objects, pods, NOW)) >= set(expected)


@pytest.mark.parametrize(
    ("model", "settings", "reason", "message"),
    [
        ({"uri": "pvc://claim/x"}, SETTINGS, "NotPossibleHere", "spec.model.uri: pvc://claim/x is on a claim of a cluster, which local mode does not mount; use a local path."),
        ({"uri": "./model"}, CLUSTER, "LocalPathInCluster", "spec.model.uri: ./model is a path of one machine, which no pod can read; use a hub id, hf://, oci://, s3:// or pvc://."),
        ({"uri": "oci://quay.io/Team/model:1"}, CLUSTER, "InvalidSpec", "spec.model.uri: oci://quay.io/Team/model:1 is not an address of oci://, its repository has upper-case letters; registries accept lower case only."),
        ({"uri": "oci://model:1"}, CLUSTER, "InvalidSpec", "spec.model.uri: oci://model:1 is not an address of oci://; write oci://<registry>/<repository>:<tag> or oci://<registry>/<repository>@sha256:<digest>."),
        ({"uri": "s3://b/x", "secretRef": {"name": "a", "key": "k"}}, CLUSTER, "InvalidSpec", "spec.model.secretRef.key: names one key, and s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; remove it."),
    ],
)  # fmt: skip
def test_what_cannot_start(model: dict[str, Any], settings: Any, reason: str, message: str) -> None:
    found = resolve({"dataset": {"uri": "org/data"}, "model": model}, settings)
    assert isinstance(found, SpecRejection)
    assert (found.reason.name, found.message) == (reason, message)
