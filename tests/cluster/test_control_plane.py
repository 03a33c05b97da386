"""The control plane itself: what it must have in force for the tests on it to mean anything."""

from __future__ import annotations

from typing import Any

import pytest

import waiting
from cluster.conftest import Connect
from controlplane.api import Api, eventually
from controlplane.cluster import ControlPlane
from controlplane.programs import API_SERVER
from controlplane.trainer import is_established
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.errors import Forbidden, Invalid

ONE = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)
Object = dict[str, Any]


def run(namespace: str, **spec: Any) -> Object:
    metadata = {"name": "a", "namespace": namespace}
    document = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata}
    return {**document, "spec": {"dataset": {"uri": "tatsu-lab/alpaca"}, **spec}}


def patches(generation: str) -> Object:
    """A ServiceAccount for the training's pods, in the words of a generation."""
    pod = {"serviceAccountName": "trainer"}
    if generation == "2.1":
        return {"podTemplateOverrides": [{"targetJobs": [{"name": "node"}], "spec": pod}]}
    job = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    template = {"spec": {"replicatedJobs": [job]}}
    return {"runtimePatches": [{"manager": "finetunerun.io/operator", "trainingRuntimeSpec": {"template": template}}]}


def trainjob(namespace: str, runtime: str = "torch-distributed", **spec: Any) -> Object:
    metadata = {"name": "a", "namespace": namespace}
    document = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": metadata}
    return {**document, "spec": {"runtimeRef": {"name": runtime}, "trainer": {"numNodes": 2}, **spec}}


def test_it_is_the_release_that_is_pinned(api: Api) -> None:
    assert api.call("GET", "/version")["gitVersion"] == API_SERVER.version == "v1.34.4"


async def test_our_definition_is_served(api: Api, cluster: ApiServer, namespace: str) -> None:
    assert is_established(api, "finetuneruns.finetunerun.io")
    definition = api.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "finetuneruns.finetunerun.io")
    assert {one["type"]: one["status"] for one in definition["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert (await cluster.create(run(namespace)))["metadata"]["generation"] == 1
    with pytest.raises(Invalid) as rejection:
        await cluster.create(run(namespace, training={"algorithm": "sft", "osft": {"unfreezeRankRatio": 0.5}}))
    assert [field for field, _ in rejection.value.causes] == ["spec.training.osft"]
    assert (await cluster.list(FINETUNERUN, namespace)).items[0]["metadata"]["name"] == "a"


async def test_trainer_makes_a_job_of_a_trainjob(api: Api, cluster: ApiServer, namespace: str, generation: str) -> None:
    created = await cluster.create(trainjob(namespace, **patches(generation)))
    eventually(lambda: bool(api.list("batch/v1", "Job", namespace)), "the JobSet has its Job")
    (jobset,) = api.list("jobset.x-k8s.io/v1alpha2", "JobSet", namespace)
    (job,) = api.list("batch/v1", "Job", namespace)
    (owner,) = jobset["metadata"]["ownerReferences"]
    assert owner["uid"] == created["metadata"]["uid"]
    assert job["metadata"]["name"] == "a-node-0"
    assert (job["spec"]["parallelism"], job["spec"]["completionMode"]) == (2, "Indexed")
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert {"PET_NNODES", "PET_MASTER_ADDR"} <= {one["name"] for one in pod["containers"][0]["env"]}


async def test_a_trainjob_is_complete_when_its_pods_are(api: Api, cluster: ApiServer, namespace: str) -> None:
    await cluster.create(trainjob(namespace))
    eventually(lambda: len(api.list("v1", "Pod", namespace)) == 2, "both pods are there")
    for pod in api.list("v1", "Pod", namespace):  # no node: a test sets how a pod ends
        api.patch({"apiVersion": "v1", "kind": "Pod", **pod}, {"status": {"phase": "Succeeded"}}, "status")

    def conditions() -> Object:
        status = api.get("trainer.kubeflow.org/v1alpha1", "TrainJob", "a", namespace).get("status", {})
        return {one["type"]: one["status"] for one in status.get("conditions", ())}

    eventually(lambda: conditions() == {"Complete": "True"}, "the TrainJob is complete")


async def test_fields_of_the_other_generation_are_rejected(cluster: ApiServer, namespace: str, generation: str) -> None:
    other = patches("2.3" if generation == "2.1" else "2.1")
    with pytest.raises(Invalid, match=f'strict decoding error: unknown field "spec.{next(iter(other))}"'):
        await cluster.create(trainjob(namespace, **other))


async def test_trainer_s_webhook_is_in_force(cluster: ApiServer, namespace: str) -> None:
    with pytest.raises(Invalid, match="specified clusterTrainingRuntime must be created before the TrainJob is created"):
        await cluster.create(trainjob(namespace, "no-such-runtime"))
    assert (await cluster.list(TRAINJOB, namespace)).items == []


@pytest.mark.parametrize(
    "account", [("jobset-system", "jobset-controller-manager"), ("kubeflow-system", "kubeflow-trainer-controller-manager")]
)
async def test_the_controllers_have_no_rights_but_their_own(
    api: Api, connect: Connect, namespace: str, account: tuple[str, str]
) -> None:
    async with connect(token=api.token(*account)) as controller:
        assert (await controller.list(TRAINJOB if account[0] == "kubeflow-system" else JOB)).items is not None
        with pytest.raises(Forbidden):
            await controller.create(run(namespace))


@ONE
def test_anybody_can_be_somebody(control_plane: ControlPlane, api: Api) -> None:
    mary = control_plane.client("mary", "mary", ["data-science"])
    with Api(api.address, control_plane.authority.tls(mary)) as hers:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
        user = hers.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)["status"]["userInfo"]
    assert (user["username"], user["groups"]) == ("mary", ["data-science", "system:authenticated"])


@ONE
async def test_pod_security_holds(cluster: ApiServer, restricted_namespace: str, namespace: str) -> None:
    container = {"name": "main", "image": "example.com/image"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}
    with pytest.raises(Forbidden, match='violates PodSecurity "restricted:latest"'):
        await cluster.create({**pod, "metadata": {"name": "a", "namespace": restricted_namespace}})
    await cluster.create({**pod, "metadata": {"name": "a", "namespace": namespace}})
    assert (await cluster.get(POD, namespace, "a"))["status"]["phase"] == "Pending"


@ONE
async def test_an_owner_is_blocked_only_by_who_may(api: Api, cluster: ApiServer, connect: Connect, namespace: str) -> None:
    def role(name: str, *rules: Object) -> None:
        common = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, "namespace": namespace}}
        api.create({**common, "kind": "Role", "rules": list(rules)})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
        api.create({**common, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]})

    owner = await cluster.create(run(namespace))
    reference = {
        "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "name": "a", "uid": owner["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": namespace, "ownerReferences": [reference]},
    }
    async with connect(token=api.token(namespace, "default")) as somebody:

        async def answer() -> str:
            try:
                await somebody.create(child)
            except Forbidden as error:
                return error.message
            return "made"

        assert "cannot create resource" in await answer()
        role("writer", {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]})
        await waiting.eventually(
            answer, lambda said: "cannot set blockOwnerDeletion" in said
        )  # rights are in force a moment later
        role("owner", {"apiGroups": ["finetunerun.io"], "resources": ["finetuneruns/finalizers"], "verbs": ["update"]})
        await waiting.eventually(answer, lambda said: said == "made")
    assert (await cluster.get(CONFIGMAP, namespace, "a"))["metadata"]["ownerReferences"] == [reference]
