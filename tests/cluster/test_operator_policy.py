"""On a real control plane: the overlay *selected* with its admission policy lets the operator work, and its token do little else."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.conftest import Connect
from cluster.looping import Loop, looping
from controlplane.api import Api
from controlplane.api import eventually as await_api
from controlplane.binaries import Binaries
from controlplane.cluster import ControlPlane
from controlplane.programs import KUBECTL
from finetune_operator.api.kinds import CONFIGMAP, JOB, TRAINJOB
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.errors import Forbidden, NotFound
from waiting import eventually

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)]
Object = dict[str, Any]
SELECTED = Path(__file__).parents[2] / "manifests/overlays/selected"
STAGE_POLICIES = SELECTED.parents[1] / "samples/platform/stage-network-policies.yaml"
LEFT_OUT = ("Deployment", "PodDisruptionBudget", "Namespace", "CustomResourceDefinition")


@pytest.fixture
def team(api: Api, namespace: str) -> Iterator[str]:
    """A namespace of runs beside that of the operator."""
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-team"}}
    api.create(manifest)
    await_api(lambda: api.get("v1", "ServiceAccount", "default", f"{namespace}-team") != {}, "its ServiceAccount exists")
    yield f"{namespace}-team"
    api.delete(manifest)


@pytest.fixture
def installed(control_plane: ControlPlane, api: Api, namespace: str, team: str) -> Iterator[str]:
    """The overlay in a namespace of the test's own, but the Deployment, and the RoleBinding with which ``team`` opts in."""
    access = control_plane.access
    assert access is not None
    kubectl = Binaries(access.binaries).path(KUBECTL)
    built = subprocess.run([kubectl, "kustomize", SELECTED], check=True, capture_output=True, text=True).stdout
    text = built.replace("namespace: finetune-operator", f"namespace: {namespace}").replace(
        "serviceaccount:finetune-operator:", f"serviceaccount:{namespace}:"
    )
    documents = [one for one in yaml.safe_load_all(text) if one["kind"] not in LEFT_OUT]
    named: list[Object] = []
    for document in documents:
        if document["kind"].startswith("ValidatingAdmissionPolicy") or document["kind"] == "ClusterRoleBinding":
            document["metadata"]["name"] += f"-{namespace}"
            named.append(document)
        if document["kind"] == "ValidatingAdmissionPolicyBinding":
            document["spec"]["policyName"] += f"-{namespace}"
        api.apply(document)
    binding = yaml.safe_load((SELECTED / "opt-in.yaml").read_text(encoding="utf-8"))
    binding["metadata"]["namespace"], binding["subjects"][0]["namespace"] = team, namespace
    api.apply(binding)
    yield namespace
    for document in named:
        api.delete(document)


@pytest.fixture
async def operator(connect: Connect, api: Api, installed: str) -> AsyncIterator[ApiServer]:
    """Whoever has the token of the operator."""
    async with connect(token=api.token(installed, "finetune-operator")) as client:
        yield client


async def denied(operator: ApiServer, manifest: Object) -> str:
    with pytest.raises(Forbidden) as raised:
        await operator.create(manifest)
    return str(raised.value)


async def in_force(operator: ApiServer, api: Api, manifest: Object) -> None:
    """Wait until the API server enforces the policy: it reads new policies in its own time, between two calls of the operator."""
    for _ in range(100):
        try:
            await operator.create(manifest)
        except Forbidden:
            return
        api.delete(manifest)
        await asyncio.sleep(0.2)
    raise AssertionError("the policy is not in force")


def job(namespace: str, owners: list[Object], name: str = "stolen", **spec: Any) -> Object:
    container = {"name": "stage", "image": "evil.example.com/x"}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container], **spec}}},
    }  # fmt: skip


def configmap(namespace: str, name: str, **content: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, **content}


async def test_the_token_of_the_operator_creates_children_of_runs_only(
    operator: ApiServer, api: Api, installed: str, team: str
) -> None:
    owner = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "name": "demo", "uid": "u", "controller": True}
    foreign = job(team, [], serviceAccountName="finetune-stage")
    await in_force(operator, api, foreign)
    assert "it is not a child of a FineTuneRun" in await denied(operator, foreign)
    for account in ("finetune-operator", "default", None):
        fields = {"serviceAccountName": account} if account else {}
        words = "its ServiceAccount is not allowed; use one of finetune-stage"
        assert words in await denied(operator, job(team, [owner], **fields))
    runtime = {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": "torch-distributed"}
    for overrides in (
        [], [{"targetJobs": [{"name": "node"}], "spec": {"serviceAccountName": "default"}}], [{"targetJobs": [{"name": "node"}]}],
    ):  # fmt: skip
        metadata = {"name": "stolen", "namespace": team, "ownerReferences": [owner]}
        spec = {"runtimeRef": runtime, **({"podTemplateOverrides": overrides} if overrides else {})}
        trainjob = {"apiVersion": TRAINJOB.api_version, "kind": "TrainJob", "metadata": metadata, "spec": spec}
        assert "its ServiceAccount is not allowed" in await denied(operator, trainjob)
    assert "it belongs to no FineTuneRun" in await denied(operator, configmap(team, "anything", data={"a": "b"}))
    assert "it belongs to no FineTuneRun" in await denied(
        operator, configmap(team, "finetune-training-bundle-1", data={"a": "b"})
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "another", "namespace": team}}
    assert "the operator creates only finetune-stage, without a token" in await denied(operator, account)
    api.create(configmap(team, "of-a-user", data={"a": "b"}))
    api.create(job(team, [], "of-a-user"))
    for kind in (CONFIGMAP, JOB):
        with pytest.raises(Forbidden):
            await operator.delete(kind, team, "of-a-user")


async def test_not_even_the_rights_for_a_whole_cluster_reach_its_own_namespaces(
    operator: ApiServer, api: Api, installed: str
) -> None:
    api.create({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"all-{installed}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "finetune-operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "finetune-operator", "namespace": installed}],
    })  # fmt: skip
    try:
        owner = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "name": "demo", "uid": "u", "controller": True}
        await in_force(operator, api, job(installed, []))
        child = job("kube-system", [owner], serviceAccountName="finetune-stage")
        assert "the operator writes nothing into the namespaces of the cluster" in await denied(operator, child)
        elsewhere = copy.deepcopy(child)
        elsewhere["metadata"]["namespace"] = "default"
        await operator.create(elsewhere)
        with contextlib.suppress(NotFound):  # the garbage collector was faster: its owner does not exist
            await operator.delete(JOB, "default", "stolen")
    finally:
        api.delete({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"all-{installed}"},
        })  # fmt: skip


async def test_runs_of_a_namespace_that_opted_in_succeed(
    control_plane: ControlPlane, operator: ApiServer, api: Api, connect: Connect, installed: str, team: str, tmp_path: Path
) -> None:
    await in_force(operator, api, job(team, []))
    for document in yaml.safe_load_all(STAGE_POLICIES.read_text(encoding="utf-8")):
        document["metadata"]["namespace"] = team
        api.apply(document)
    async with looping(control_plane, api, connect, team, tmp_path, home=installed) as loop:
        loop.pods.running.add("training")
        await loop.apply()
        await eventually_running(loop)
        await loop.edit({"suspend": True})
        await loop.edit({"suspend": False})
        loop.pods.running.clear()
        await loop.ended()
        await loop.edit({"cleanup": {"ttlAfterFinished": "0s"}})
        await gone(loop)


async def eventually_running(loop: Loop) -> None:
    await eventually(loop.run, lambda run: "training" in run.stages and run.stages["training"].reason == "Running", 60)


async def gone(loop: Loop) -> None:
    """The clean-up may delete the children of the run."""
    await eventually(loop.run, lambda run: "cleanedAt" in run.status, 60)
    assert not (await loop.cluster.list(JOB, loop.namespace)).items
