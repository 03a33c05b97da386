"""Pods of stage *dataset*: Secrets, CA bundle and claims, by the location of the data."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.codec import decode, encode
from finetune_contract.documents import TokenizationInputs
from finetune_operator.api.kinds import CLAIM
from finetune_operator.core.blockers import unexplained
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.observation import Ref, WarningEvent
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.run import Run
from finetune_operator.core.stages import GRAPH
from world import NOW, SETTINGS, World

from .passes import condition, decide, observed, run_of, world_at
from .test_manifests import CLUSTER

HUB = [("HF_TOKEN", "hf-token")]
S3 = [
    (name, "s3-secret")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_S3_ENDPOINT", "AWS_DEFAULT_REGION")
]
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


def run_with(dataset: dict[str, Any]) -> Run:
    """A run on a cluster that has been resolved."""
    resolved = resolve({"dataset": dataset}, CLUSTER)
    assert not isinstance(resolved, SpecRejection), resolved
    return Run.parse({**World.new().run, "spec": {"dataset": dataset}, "status": {"resolved": resolved, "round": 1}})


def needs(dataset: dict[str, Any]) -> PodNeeds:
    return GRAPH.programs["dataset"].pod(run_with(dataset))


def secrets(dataset: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """The variables from Secrets: name, Secret, key, and whether they are optional."""
    found = [(entry["name"], entry["valueFrom"]["secretKeyRef"]) for entry in needs(dataset).environment if "valueFrom" in entry]
    return [(name, source["name"], source["key"], source["optional"]) for name, source in found]


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (("org/data",), HUB), (("s3://b/x.jsonl",), S3), (("https://example.com/x.jsonl",), []), (("pvc://claim/x.jsonl",), []),
        (("s3://b/x.jsonl", "org/data"), [*S3, *HUB]), (("org/data", "org/held-out"), HUB),
    ],
)  # fmt: skip
def test_each_location_gets_the_keys_of_its_own_secret_and_they_are_optional(
    uris: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    found = secrets(dict(zip(("uri", "evalUri"), uris, strict=False)))
    assert found == [(name, secret, name, True) for name, secret in expected]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("org/data", [name for name, _ in HUB]), ("s3://b/x.jsonl", [name for name, _ in S3]),
        ("https://example.com/x.jsonl", ["HTTP_AUTHORIZATION"]),
    ],
)  # fmt: skip
def test_all_keys_of_a_secret_that_the_run_names(uri: str, expected: list[str]) -> None:
    assert secrets({"uri": uri, "secretRef": {"name": "mine"}}) == [(name, "mine", name, True) for name in expected]


@pytest.mark.parametrize(("uri", "variable"), [("org/data", "HF_TOKEN"), ("https://example.com/x", "HTTP_AUTHORIZATION")])
def test_a_key_that_the_run_names_has_one_meaning(uri: str, variable: str) -> None:
    assert secrets({"uri": uri, "secretRef": {"name": "mine", "key": "k"}}) == [(variable, "mine", "k", False)]


def test_a_login_for_held_out_rows_on_the_web() -> None:
    found = secrets({"uri": "org/data", "evalUri": "https://example.com/x", "secretRef": {"name": "mine"}})
    assert found[-1] == ("HTTP_AUTHORIZATION", "mine", "HTTP_AUTHORIZATION", True)


def test_a_bundle_is_mounted_and_its_path_is_a_variable() -> None:
    found = needs({"uri": "https://example.com/x.jsonl", "caRef": {"name": "ca", "key": "root.pem"}})
    assert {"name": "FINETUNE_SOURCE_CA", "value": "/etc/finetune-source-ca/root.pem"} in found.environment
    assert found.volumes == ({"name": "source-ca", "configMap": {"name": "ca"}},)
    assert found.mounts == ({"name": "source-ca", "mountPath": "/etc/finetune-source-ca", "readOnly": True},)
    assert needs({"uri": "org/data"}).volumes == ()


def test_each_claim_is_mounted_once_and_read_only() -> None:
    found = needs({"uri": "pvc://one/a/*.jsonl", "evalUri": "pvc://two/b.jsonl"})
    assert {"name": "FINETUNE_CLAIMS", "value": "/mnt/claims"} in found.environment
    assert found.volumes == tuple(
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for number, claim in enumerate(("one", "two"))
    )
    assert found.mounts == tuple(
        {"name": f"claim-{number}", "mountPath": f"/mnt/claims/{claim}", "readOnly": True}
        for number, claim in enumerate(("one", "two"))
    )
    assert len(needs({"uri": "pvc://one/a.jsonl", "evalUri": "pvc://one/b.jsonl"}).volumes) == 1


def test_the_server_is_an_input_of_s3_only() -> None:
    server = {"endpoint": "https://minio.example.com", "region": "eu-west-1"}
    document = encode(GRAPH.programs["dataset"].inputs(run_with({"uri": "s3://b/x", **server})))
    assert {key: document[key] for key in server} == server
    document = encode(GRAPH.programs["dataset"].inputs(run_with({"uri": "org/data", **server})))  # as a default of the namespace
    assert not document.keys() & server.keys()


def test_events_of_the_claims_of_the_data_are_read_and_reported() -> None:
    world = world_at("dataset")
    world.run["status"]["resolved"]["spec"]["dataset"]["uri"] = "pvc://data/rows.jsonl"
    pods = {"dataset": (PodReport("p", unschedulable=UNBOUND),)}
    claims = (Ref(CLAIM, "workspace"), Ref(CLAIM, "data"))
    assert unexplained(run_of(world), observed(world).objects, pods, NOW) == claims
    event = WarningEvent("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
    assert condition(decide(world, pods=pods, warning_events={claims[1]: (event,)}).status, "Stalled") == ("True", "ClaimPending")


def test_a_claim_is_rejected_in_local_mode() -> None:
    found = resolve({"dataset": {"uri": "org/data", "evalUri": "pvc://claim/x.jsonl"}}, SETTINGS)
    assert isinstance(found, SpecRejection)
    assert (found.reason.name, found.message) == (
        "NotPossibleHere",
        "spec.dataset.evalUri: pvc://claim/x.jsonl is on a claim of a cluster, which local mode does not mount; use a local path.",
    )


@pytest.mark.parametrize(
    ("stated", "expected"), [({}, True), ({"sampleInStatus": True}, True), ({"sampleInStatus": False}, False)]
)
def test_a_run_decides_whether_its_status_shows_rows(stated: dict[str, Any], expected: bool) -> None:
    run = run_with({"uri": "org/data", **stated})
    assert decode(TokenizationInputs, encode(GRAPH.programs["tokenization"].inputs(run)), "inputs").sample is expected
