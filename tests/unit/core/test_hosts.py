"""Hosts of a run that the configuration does not allow, and which pods get tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.manifests.pod import PodNeeds, environment
from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.stages import GRAPH
from unit.core.test_manifests import CLUSTER
from world import SETTINGS

Object = dict[str, Any]
PLACE = replace(
    CLUSTER,
    allowed_hosts={
        "registries": ("*.svc",),
        "hubs": ("hub.example.com",),
        "objectStores": ("s3.example.com",),
        "images": ("quay.io",),
        "hosts": (),
    },
    environment={"HF_ENDPOINT": "https://hub.example.com"},
)
CLAIM = {"dataset": {"uri": "pvc://data/rows.jsonl"}, "model": {"uri": "org/model"}}
ADD = "in the operator's configuration"


def rejected(spec: Object, place: Settings = PLACE) -> str | None:
    found = resolve({**CLAIM, **spec}, place)
    return found.message.removeprefix("spec.") if isinstance(found, SpecRejection) else None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, None),
        ({"registry": {"address": "registry.models.svc"}}, None),
        (
            {"registry": {"address": "https://registry.example.com/x"}},
            f"registry.address: host registry.example.com is not allowed here; use one of *.svc, or have it added to allowedHosts.registries {ADD}.",
        ),
        ({"dataset": {"uri": "s3://bucket/rows.jsonl"}}, None),
        ({"dataset": {"uri": "s3://bucket/rows.jsonl", "endpoint": "https://s3.example.com"}}, None),
        (
            {"dataset": {"uri": "s3://bucket/rows.jsonl", "endpoint": "https://other.example.com"}},
            f"dataset.endpoint: host other.example.com is not allowed here; use one of s3.example.com, or have it added to allowedHosts.objectStores {ADD}.",
        ),
        (
            {"model": {"uri": "s3://bucket/model/", "endpoint": "https://other.example.com"}},
            f"model.endpoint: host other.example.com is not allowed here; use one of s3.example.com, or have it added to allowedHosts.objectStores {ADD}.",
        ),
        ({"model": {"uri": "oci://quay.io/org/model:1"}}, None),
        (
            {"model": {"uri": "oci://ghcr.io/org/model:1"}},
            f"model.uri: host ghcr.io is not allowed here; use one of quay.io, or have it added to allowedHosts.images {ADD}.",
        ),
        (
            {"dataset": {"uri": "pvc://data/a", "evalUri": "https://files.example.com/a", "trainSplit": 1}},
            f"dataset.evalUri: host files.example.com is not allowed here; use none: remove the field, or have it added to allowedHosts.hosts {ADD}.",
        ),
    ],
)  # fmt: skip
def test_a_host_that_is_not_listed_is_rejected_with_its_field(spec: Object, message: str | None) -> None:
    assert rejected(spec) == message
    assert rejected(spec, CLUSTER) is None, "without lists, all are allowed"


def test_the_hub_is_that_of_the_environment() -> None:
    place = replace(PLACE, environment={})
    words = "host huggingface.co is not allowed here; use one of hub.example.com, or have it added to allowedHosts.hubs"
    assert rejected({}, place) == f"model.uri: {words} {ADD}."
    local = replace(SETTINGS, allowed_hosts={"hubs": ()})
    offline = resolve({"dataset": {"uri": "/data.jsonl"}, "model": {"uri": "/models/base"}}, local)
    assert not isinstance(offline, SpecRejection), offline.message
    assert offline["environment"] == {"HF_HUB_OFFLINE": "1"}
    found = resolve(CLAIM, PLACE)
    assert not isinstance(found, SpecRejection)
    assert found["environment"] == {"HF_ENDPOINT": "https://hub.example.com"}
    assert found["allowedHosts"] == {name: list(hosts) for name, hosts in PLACE.allowed_hosts.items()}


def test_a_secret_that_the_run_names_must_not_be_sent_unencrypted() -> None:
    spec = {"registry": {"address": "http://registry.example.com", "port": 80, "secretRef": {"name": "mine"}}}
    message = rejected(spec, CLUSTER) or ""
    assert message.startswith(
        "registry.address: http://registry.example.com:80 would receive the token of registry.secretRef unencrypted; "
    )
    assert message.endswith("or have the host added to allowedHosts.registries in the operator's configuration.")
    listed = replace(CLUSTER, allowed_hosts={"registries": ("registry.example.com",)})
    assert rejected(spec, listed) is None


def environment_of(spec: Object, stage: str, place: Settings = CLUSTER) -> dict[str, Object]:
    resolved = resolve({**CLAIM, **spec}, place)
    assert not isinstance(resolved, SpecRejection), resolved.message
    run = Run("demo", "team", "u", 1, spec, {"resolved": resolved, "round": 1})
    return {one["name"]: one for one in GRAPH.programs[stage].pod(run).environment}


@pytest.mark.parametrize("stage", ["training", "engine-check", "tokenization"])
def test_stages_that_download_nothing_get_no_secret(stage: str) -> None:
    spec = {"dataset": {"uri": "org/data", "secretRef": {"name": "a"}}, "model": {"uri": "org/model", "secretRef": {"name": "b"}}}
    spec |= {"registry": {"address": "https://registry.example.com", "secretRef": {"name": "c"}}}
    assert not [entry for entry in environment_of(spec, stage).values() if "secretKeyRef" in (entry.get("valueFrom") or {})]


def test_only_the_registration_gets_the_token_of_the_registry() -> None:
    spec = {"registry": {"address": "https://registry.example.com", "onExisting": "Fail"}}
    having = {name for name in GRAPH.programs if "REGISTRY_TOKEN" in environment_of(spec, name)}
    assert having == {"registration", "registry-check"}


@pytest.mark.parametrize("key", [None, "token"])
def test_the_host_of_a_token_comes_from_the_same_secret(key: str | None) -> None:
    secret = {"name": "mine", **({"key": key} if key else {})}
    found = environment_of({"registry": {"address": "registry.models.svc", "secretRef": secret}}, "registration")
    assert found["REGISTRY_TOKEN"]["valueFrom"]["secretKeyRef"] == {
        "name": "mine",
        "key": key or "REGISTRY_TOKEN",
        "optional": not key,
    }
    assert found["REGISTRY_HOST"]["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "REGISTRY_HOST", "optional": True}


def test_the_standard_token_is_not_passed_to_a_pod_that_must_not_send_it() -> None:
    spec = {"registry": {"address": "http://registry.example.com"}}
    assert not {"REGISTRY_TOKEN", "REGISTRY_HOST"} & environment_of(spec, "registration").keys()
    listed = replace(CLUSTER, allowed_hosts={"registries": ("registry.example.com",)})
    assert {"REGISTRY_TOKEN", "REGISTRY_HOST"} <= environment_of(spec, "registration", listed).keys()


def test_the_programs_get_the_rules_for_addresses_and_sizes() -> None:
    place = replace(CLUSTER, private_addresses="listed", download_limits={"dataset": 5, "model": 7})
    run = Run("demo", "team", "u", 1, CLAIM, {"resolved": resolve(CLAIM, place), "round": 1})
    local = Run("demo", "team", "u", 1, CLAIM, {"resolved": resolve(CLAIM, CLUSTER), "round": 1})
    found, limits = {}, {}
    for stage in GRAPH.programs:
        entries = {one["name"]: one["value"] for one in environment(run, StageStatus(stage, attempt=1), PodNeeds(), None)}
        found[stage], limits[stage] = entries.get("FINETUNE_PRIVATE_ADDRESSES"), entries.get("FINETUNE_DOWNLOAD_LIMIT")
        without = {one["name"] for one in environment(local, StageStatus(stage, attempt=1), PodNeeds(), None)}
        assert not {"FINETUNE_PRIVATE_ADDRESSES", "FINETUNE_DOWNLOAD_LIMIT"} & without
    assert {stage for stage, value in found.items() if value is None} == {"training", "engine-check"}
    assert set(found.values()) == {"listed", None}
    assert {stage: limit for stage, limit in limits.items() if limit} == {"dataset": "5", "model": "7"}


def test_the_programs_get_the_lists() -> None:
    run = Run("demo", "team", "u", 1, CLAIM, {"resolved": resolve(CLAIM, PLACE), "round": 1})
    found = {one["name"]: one["value"] for one in environment(run, StageStatus("dataset", attempt=1), PodNeeds(), None)}
    assert json.loads(found["FINETUNE_ALLOWED_HOSTS"]) == {name: list(hosts) for name, hosts in PLACE.allowed_hosts.items()}
