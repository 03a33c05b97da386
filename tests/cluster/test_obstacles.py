"""A missing prerequisite is reported as a condition within seconds; the run resumes when it appears.

The operator works here with the rights that it has in one namespace, and none beyond.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import Connect
from cluster.in_process import operating, start, status_of
from cluster.operators import install_overlay
from cluster.sites import TOKEN, UNTRAINED, Object, Site, site_at
from controlplane.api import Api
from controlplane.binaries import Binaries
from controlplane.cluster import ControlPlane
from controlplane.programs import KUBECTL
from finetune_operator.api.kinds import CLAIM, EVENT, FINETUNERUN, JOB, TRAINJOB
from finetune_operator.core import blockers
from finetune_operator.core.times import seconds_between
from finetune_operator.kube.client import ApiServer
from waiting import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)]
PLAIN = {name: value for name, value in UNTRAINED.items() if name != "gate"}
TOLERANT = {"tolerations": [{"key": "finetunerun.io/processes", "operator": "Exists"}]}
SECONDS = 8.0
"""Five, and some for a machine that does other things too."""


@pytest.fixture
async def site(
    control_plane: ControlPlane, api: Api, connect: Connect, namespace: str, tmp_path: Path, tiny_model: Path
) -> AsyncIterator[Site]:
    assert control_plane.access is not None
    kubectl = Binaries(control_plane.access.binaries).path(KUBECTL)
    install_overlay(api, kubectl, "namespaced", namespace, tmp_path / "manifests")
    async with connect() as cluster, site_at(control_plane, cluster, namespace, tmp_path, tiny_model) as site:
        yield site


async def stalled(site: Site, reason: str, stage: str, name: str = "demo") -> str:
    """Return the message of the blocker once it has that reason: soon after the stage starts to wait."""
    status = await eventually(lambda: site.status(name), lambda status: reason in dict(_stalled(status)), 60)
    assert "failure" not in status, status["failure"]
    since = next(entry["startedAt"] for entry in status["stages"] if entry["name"] == stage)
    told = next(entry["lastTransitionTime"] for entry in status["conditions"] if entry["type"] == "Stalled")
    assert (seconds_between(since, told) or 0) <= SECONDS
    return dict(_stalled(status))[reason]


def _stalled(status: Object) -> list[tuple[str, str]]:
    return [
        (condition["reason"], condition["message"])
        for condition in status.get("conditions") or ()
        if (condition["type"], condition["status"]) == ("Stalled", "True")
    ]


async def continues(site: Site, name: str, stage: str, seconds: float = 60) -> None:
    """The stage that waited is done, and nothing stalls the run."""
    status = await eventually(lambda: site.status(name), lambda status: _state(status, stage) == "Succeeded", seconds)
    assert _stalled(status) == []


def _state(status: Object, stage: str) -> str | None:
    return next((entry["state"] for entry in status.get("stages") or () if entry["name"] == stage), None)


def training(**wish: Any) -> Object:
    """A run whose training asks for something more."""
    return {**PLAIN, "training": {**PLAIN["training"], **wish}}


async def test_a_service_account_that_is_missing(site: Site) -> None:
    async with site.operator(allow={"serviceAccounts": ["tuner"]}):
        await site.apply({**PLAIN, "serviceAccountName": "tuner"})
        message = await stalled(site, "ServiceAccountNotFound", "dataset")
        assert 'serviceaccount "tuner" not found' in message
        assert "Create it, and the run resumes" in message
        warnings = {"involvedObject.name": "demo", "type": "Warning"}
        news = await eventually(lambda: site.cluster.list(EVENT, site.namespace, fields=warnings), lambda page: bool(page.items))
        assert [event["reason"] for event in news.items] == ["ServiceAccountNotFound"]
        site.api.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tuner", "namespace": site.namespace}}
        )
        await continues(site, "demo", "dataset")


async def test_a_quota_that_is_used_up(site: Site) -> None:
    def quota(name: str, **hard: str) -> Object:
        metadata = {"name": name, "namespace": site.namespace}
        return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}

    site.api.create(quota("volumes", persistentvolumeclaims="0"))
    site.api.create(quota("pods", **{"requests.memory": "1Mi"}))
    await asyncio.to_thread(_used, site, "volumes", "pods")
    async with site.operator():
        await site.apply(PLAIN)
        assert "exceeded quota: volumes" in await stalled(site, "QuotaExceeded", "workspace")
        site.api.delete(quota("volumes"))
        await continues(site, "demo", "workspace")
        assert "exceeded quota: pods" in await stalled(site, "QuotaExceeded", "dataset")
        site.api.delete(quota("pods"))
        await continues(site, "demo", "dataset")


def _used(site: Site, *names: str) -> None:
    """Wait until the quota controller has counted: before that, nothing is rejected."""
    from controlplane.api import eventually as wait

    for name in names:
        wait(lambda name=name: "used" in site.api.get("v1", "ResourceQuota", name, site.namespace).get("status", {}), name)


async def test_a_key_of_a_secret_that_is_missing(site: Site) -> None:
    spec = {**PLAIN, "dataset": {**PLAIN["dataset"], "secretRef": {"name": "mine", "key": "token"}}}
    async with site.operator():
        await site.apply(spec)
        assert 'secret "mine" has no key token' in await stalled(site, "SecretMissing", "dataset")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": site.namespace}}
        site.api.create({**secret, "stringData": {"token": TOKEN}})
        await continues(site, "demo", "dataset")


async def test_a_storage_class_that_is_missing(site: Site) -> None:
    name = f"class-{site.namespace}"
    class_ = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "example.com/none",
    }
    async with site.operator():
        await site.apply({**PLAIN, "storage": {"storageClassName": name}})
        assert name in await stalled(site, "StorageClassNotFound", "dataset")
        site.api.create(class_)
        try:
            await continues(site, "demo", "dataset")
        finally:
            site.api.delete(class_)


async def test_a_runtime_that_is_missing(site: Site) -> None:
    name = f"runtime-{site.namespace}"
    async with site.operator():
        await site.apply(training(runtimeRef=name))
        assert name in await stalled(site, "RuntimeNotFound", "training")
        found = site.api.get("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", "torch-distributed")
        runtime = {**found, "metadata": {"name": name, "labels": found["metadata"].get("labels", {})}}
        site.api.create(runtime)
        try:
            await eventually(site.status, lambda status: _stalled(status) == [] and _running(status))
        finally:
            await site.cluster.delete(FINETUNERUN, site.namespace, "demo")
            site.api.delete(runtime)


def _running(status: Object) -> bool:
    return any(entry["name"] == "training" and entry.get("reason") == "Running" for entry in status["stages"])


async def test_pods_that_no_node_can_take(site: Site) -> None:
    async with site.operator(engineCheck=False):  # PyTorch of the tests is built for CPUs
        await site.apply(training(gpusPerWorker=8, placement=TOLERANT), "gpu")
        await site.apply(training(resources={"cpu": 1, "memory": "4000Gi"}, placement=TOLERANT), "memory")
        await site.apply(training(resources={"cpu": 1, "memory": "4000Gi"}), "taint")
        assert "nvidia.com/gpu" in await stalled(site, "GPUUnavailable", "training", "gpu")
        assert "Insufficient memory" in await stalled(site, "NodesTooSmall", "training", "memory")
        assert "taint" in await stalled(site, "Unschedulable", "training", "taint")


async def test_a_right_that_the_operator_lacks(site: Site) -> None:
    role = site.api.get("rbac.authorization.k8s.io/v1", "Role", "finetune-operator", site.namespace)
    without = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    site.api.patch(role, {"rules": without})
    async with site.operator():
        await site.apply(PLAIN)
        message = await stalled(site, "Forbidden", "dataset")
        assert 'cannot list resource "pods"' in message
        assert f'in the namespace "{site.namespace}"' in message
        site.api.patch(role, {"rules": role["rules"]})
        await continues(site, "demo", "dataset")


async def test_a_namespace_whose_pod_security_the_runtime_does_not_meet(site: Site) -> None:
    namespace = site.api.get("v1", "Namespace", site.namespace)
    site.api.patch(namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    async with site.operator():
        await site.apply(PLAIN)
        assert "violates PodSecurity" in await stalled(site, "PodSecurity", "training")
        assert _state(await site.status(), "dataset") == "Succeeded", "our own Jobs meet it"


async def test_pods_that_defaults_make_invalid_end_the_run_before_anything_is_created(site: Site) -> None:
    """No API server validates the defaults of a namespace: the operator does, by the same rules."""
    toleration = "{key: a, operator: Exists, value: b}"
    defaults = {"spec.yaml": f"training: {{placement: {{tolerations: [{toleration}]}}}}"}
    metadata = {"name": "finetune-defaults", "namespace": site.namespace}
    site.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": defaults})
    async with site.operator():
        await site.apply(PLAIN)
        status = await site.ended()
    assert status["failure"]["reason"] == "InvalidSpec"
    assert status["failure"]["message"] == (
        "ConfigMap finetune-defaults, training.placement.tolerations[0].value: operator Exists takes no value; remove value, or set"
        " operator: Equal."
    )
    assert "stages" not in status
    for kind in (CLAIM, JOB, TRAINJOB):
        assert (await site.cluster.list(kind, site.namespace)).items == []


async def test_a_child_whose_pods_never_appear(
    cluster: ApiServer, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime's own pods are invalid: the Job cannot be made, which only JobSet's log shows."""
    monkeypatch.setattr(blockers, "NO_PODS_SECONDS", 4.0)
    runtime = api.get("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", "torch-distributed")
    runtime["metadata"] = {"name": f"odd-{namespace}", "labels": runtime["metadata"].get("labels", {})}
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["tolerations"] = [{"key": "a", "operator": "Exists", "value": "b"}]
    api.create(runtime)

    async def stalled_by_it() -> str:
        return dict(_stalled(await status_of(cluster, namespace))).get("NoPods", "")

    try:
        async with operating(cluster, namespace, runtime["metadata"]["name"], {}):
            await start(cluster, namespace)
            message = await eventually(stalled_by_it, seconds=60)
            assert message.startswith("TrainJob demo-train-1-1: 0 of 1 pods exist after 4 seconds or more; run oc describe")
            look = "oc describe trainjob/demo-train-1-1 jobset/demo-train-1-1 job/demo-train-1-1-node-0"
            assert f"{look} -n {namespace}" in message
            assert "failure" not in await status_of(cluster, namespace)
    finally:
        await cluster.delete(FINETUNERUN, namespace, "demo")
        api.delete(runtime)
