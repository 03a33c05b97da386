"""The engine check on real API servers with Trainer and JobSet: its pod, its record, and what a failure prevents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.instant_pods import InstantPods
from cluster.operators import install_rights, kubeconfig, operator
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, POD, TRAINJOB
from finetune_operator.kube.client import ApiServer
from waiting import eventually

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(300)

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.example.com/train@{DIGEST}"
TRAINER = "trainer.kubeflow.org/v1alpha1"


@pytest.fixture
def runtime(api: Api, namespace: str) -> Iterator[str]:
    """A runtime whose own container requests GPUs, and whose image has a digest."""
    found = api.get(TRAINER, "ClusterTrainingRuntime", "torch-distributed")
    found["metadata"] = {"name": f"gpus-{namespace}", "labels": found["metadata"].get("labels", {})}
    (replicated,) = found["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    container["image"] = IMAGE
    container["resources"] = {"limits": {"nvidia.com/gpu": "8"}, "requests": {"nvidia.com/gpu": "8"}}
    api.create(found)
    yield found["metadata"]["name"]
    api.delete(found)


class Runs:
    """Runs in a namespace, whose operator has exactly the rights of the manifests."""

    def __init__(self, cluster: ApiServer, namespace: str, pods: InstantPods) -> None:
        self.cluster, self.namespace, self.pods = cluster, namespace, pods

    async def apply(self, name: str) -> None:
        """Create a run with the default GPU."""
        spec = {"dataset": {"uri": "org/chat"}, "model": {"uri": "org/tiny"}, "evaluation": {"enabled": False}}
        metadata = {"name": name, "namespace": self.namespace}
        await self.cluster.create(
            {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec}
        )

    async def ended(self, name: str) -> Object:
        """The status of a run at its end."""

        async def status() -> Object:
            found: Object = (await self.cluster.get(FINETUNERUN, self.namespace, name)).get("status") or {}
            return found

        return await eventually(status, lambda found: "finishedAt" in found, 120)

    async def trainjobs(self) -> set[str]:
        """The names of the TrainJobs."""
        return {item["metadata"]["name"] for item in (await self.cluster.list(TRAINJOB, self.namespace)).items}

    async def records(self) -> list[Object]:
        """The records of checks."""
        return (await self.cluster.list(CONFIGMAP, self.namespace, labels={"finetunerun.io/stage": "engine-check"})).items


@pytest.fixture
async def runs(
    control_plane: ControlPlane, cluster: ApiServer, api: Api, namespace: str, runtime: str, tmp_path: Path
) -> AsyncIterator[Runs]:
    install_rights(api, namespace)
    config = kubeconfig(control_plane, api.token(namespace, "finetune-operator"), namespace, tmp_path / "kubeconfig")
    configuration = {
        "namespaces": [namespace],
        "progressSeconds": 1,
        "retrySeconds": 1,
        "defaults": {"training": {"runtimeRef": runtime}},
    }
    async with operator(config, configuration, tmp_path / "operator"), InstantPods(cluster, namespace).live() as pods:
        runs = Runs(cluster, namespace, pods)
        yield runs
        for run in (await cluster.list(FINETUNERUN, namespace)).items:
            await cluster.delete(FINETUNERUN, namespace, run["metadata"]["name"])


def resources(pod: Object) -> dict[str, str]:
    """What the container of a pod requests, which equals its limits."""
    found = pod["spec"]["containers"][0]["resources"]
    assert found["requests"] == found["limits"]
    requests: dict[str, str] = found["requests"]
    return requests


async def test_a_new_image_is_checked_without_a_gpu_and_a_known_one_is_not_checked(runs: Runs) -> None:
    await runs.apply("first")
    status = await runs.ended("first")
    assert status["phase"] == "Succeeded", status
    (check,), (training,) = runs.pods.of("engine-check"), runs.pods.of("training")
    assert resources(check) == {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "0"}
    assert resources(training)["nvidia.com/gpu"] == "1"
    assert check["spec"]["containers"][0]["image"] == training["spec"]["containers"][0]["image"] == IMAGE
    variables = {one["name"]: one.get("value") for one in check["spec"]["containers"][0]["env"]}
    assert (variables["PET_NNODES"], variables["PET_NPROC_PER_NODE"], variables["FINETUNE_GPUS"]) == ("1", "1", "0")
    (record,) = await runs.records()
    assert (record["data"]["imageDigest"], record["data"]["engine"]) == (DIGEST, "training-hub")

    await runs.apply("second")
    status = await runs.ended("second")
    (stage,) = (entry for entry in status["stages"] if entry["name"] == "engine-check")
    assert (status["phase"], stage["state"], stage["reason"]) == ("Succeeded", "Succeeded", "Reused")
    assert DIGEST in stage["message"]
    assert "child" not in stage
    assert await runs.trainjobs() == {"first-engine-1-1", "first-train-1-1", "second-train-1-1"}
    assert len(await runs.records()) == 1


async def test_a_wrong_image_fails_the_run_before_a_gpu_is_requested(runs: Runs) -> None:
    runs.pods.starting |= {"engine-check", "dataset"}
    await runs.apply("demo")

    async def pods() -> list[Object]:
        return runs.pods.of("engine-check")

    (pod,) = await eventually(pods, bool, 60)
    container = pod["spec"]["containers"][0]
    variables = {one["name"]: one.get("value", "") for one in container["env"]}
    message = "training.image: the image has no package torch; use another image."
    result = Result("engine-check", "1.1", variables["FINETUNE_INPUTS_DIGEST"], "Failed", "EngineMissing", message)
    ended = {"exitCode": 65, "reason": "Error", "message": termination_message(result)}
    status = {
        "name": container["name"], "image": IMAGE, "imageID": IMAGE, "restartCount": 0, "ready": False, "state": {"terminated": ended},
    }  # fmt: skip
    patch = {"status": {"phase": "Failed", "containerStatuses": [status]}}
    await runs.cluster.patch_status(POD, runs.namespace, pod["metadata"]["name"], patch)
    failure = (await runs.ended("demo"))["failure"]
    assert (failure["stage"], failure["reason"], failure["message"]) == ("engine-check", "EngineMissing", message)
    assert await runs.trainjobs() <= {"demo-engine-1-1"}
    assert await runs.records() == []
