"""Pods with a second container that never ends, as a service mesh adds it: stages end with their own container, and hold nothing after.

Controllers of Job, JobSet and Trainer are the real ones. The test sets what kubelets say of containers, sorted by name as they sort.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.api import Api
from finetune_contract.codec import encode
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.core import release
from finetune_operator.core.settings import PROGRAMS, Settings, Trainer
from finetune_operator.core.times import stamp
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import Conflict, NotFound
from finetune_operator.loop.watch import changes
from waiting import eventually
from world import OUTPUTS

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)]
Object = dict[str, Any]
PROXY = "istio-proxy"


@pytest.fixture
def runtime(api: Api, namespace: str) -> Any:
    """A runtime whose pods have a proxy beside the container that trains."""
    found = api.get("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", "torch-distributed")
    template = found["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    template["containers"].append({"name": PROXY, "image": "example.com/proxy"})
    manifest = {**found, "metadata": {"name": f"mesh-{namespace}", "labels": found["metadata"].get("labels", {})}}
    api.create(manifest)
    yield manifest["metadata"]["name"]
    api.delete(manifest)


@asynccontextmanager
async def operating(cluster: ApiServer, namespace: str, runtime: str, exit_codes: dict[str, int]) -> AsyncIterator[None]:
    """The control loop at work, and a kubelet that ends the container of each stage with ``exit_codes``, 0 without one."""
    place = Settings(
        mode="cluster", operator_version="0.1.0", images=dict.fromkeys(PROGRAMS, "example.com/image"), entry_digest="e" * 64,
        operator_defaults={"training": {"runtimeRef": runtime, "gpusPerWorker": 0}}, retry_seconds=0.1, progress_seconds=1.0,
        trainer=Trainer("podTemplateOverrides", pod_security=False, grace_period=False),
    )  # fmt: skip

    async def settings(_namespace: str) -> Settings:
        return place

    async with Controller(cluster, settings, (namespace,)).running(workers=4):
        kubelet = asyncio.create_task(play_kubelet(cluster, namespace, exit_codes))
        yield
        kubelet.cancel()
        await asyncio.gather(kubelet, return_exceptions=True)


async def play_kubelet(cluster: ApiServer, namespace: str, exit_codes: dict[str, int]) -> None:
    async for change in changes(cluster, POD, namespace):
        pod = change.object
        if change.type == "DELETED" or (pod.get("status") or {}).get("containerStatuses"):
            continue
        stage = pod["metadata"]["labels"]["finetunerun.io/stage"]
        variables = {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}
        code, now = exit_codes.get(stage, 0), stamp(datetime.now(UTC))
        result = Result(
            stage, variables["FINETUNE_ATTEMPT"], variables["FINETUNE_INPUTS_DIGEST"], "Failed" if code else "Succeeded",
            "Crashed" if code else "", "the data is odd" if code else "", metrics={} if code else {"seconds": 1.0},
            outputs={} if code else encode(OUTPUTS[stage]),
        )  # fmt: skip
        ended = {"exitCode": code, "startedAt": now, "finishedAt": now, "message": termination_message(result)}
        statuses = sorted(
            (
                _container(PROXY, {"running": {"startedAt": now}}),
                _container(pod["spec"]["containers"][0]["name"], {"terminated": ended}),
            ),
            key=lambda one: str(one["name"]),
        )
        try:
            await cluster.patch_status(
                POD, namespace, pod["metadata"]["name"], {"status": {"phase": "Running", "containerStatuses": statuses}}
            )
        except (NotFound, Conflict):
            continue


def _container(name: str, state: Object) -> Object:
    return {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}


async def started(cluster: ApiServer, namespace: str) -> None:
    spec = {"dataset": {"uri": "org/chat"}, "model": {"uri": "org/tiny"}, "evaluation": {"enabled": False}}
    metadata = {"name": "demo", "namespace": namespace}
    await cluster.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec})


async def ended(cluster: ApiServer, namespace: str) -> Object:
    async def status() -> Object:
        return (await cluster.get(FINETUNERUN, namespace, "demo")).get("status") or {}

    return await eventually(status, lambda status: "finishedAt" in status, 90)


async def left(cluster: ApiServer, namespace: str) -> list[str]:
    found = [(await cluster.list(kind, namespace)).items for kind in (JOB, TRAINJOB)]
    return [item["metadata"]["name"] for items in found for item in items if not item["metadata"].get("deletionTimestamp")]


async def test_stages_end_with_their_own_container(
    cluster: ApiServer, namespace: str, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "SIDECAR_SECONDS", 2.0)
    async with operating(cluster, namespace, runtime, {}):
        await started(cluster, namespace)
        status = await ended(cluster, namespace)
        assert status["phase"] == "Succeeded", status["failure"]
        stages = {entry["name"]: entry for entry in status["stages"]}
        assert [stages[name]["attempt"] for name in ("dataset", "model", "training")] == [1, 1, 1]
        assert status["model"]["digest"] == OUTPUTS["training"].digest
        assert not any((entry.get("child") or {}).get("releasing") for entry in stages.values())
        assert await eventually(lambda: left(cluster, namespace), lambda names: not names, 20) == []


async def test_a_stage_that_failed_is_told_as_it_failed(cluster: ApiServer, namespace: str, runtime: str) -> None:
    async with operating(cluster, namespace, runtime, {"training": 65}):
        await started(cluster, namespace)
        status = await ended(cluster, namespace)
    failure = status["failure"]
    assert (failure["stage"], failure["reason"], failure["exitCode"]) == ("training", "Crashed", 65)
    assert failure["message"] == "the data is odd"
    assert not [name for name in await left(cluster, namespace) if "train" in name], "its pods hold nothing"
