"""The control loop in this process, on a real control plane, and a simulated kubelet that reports immediately how containers ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from finetune_contract.codec import encode
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import FINETUNERUN, POD
from finetune_operator.api.stages import IMAGES
from finetune_operator.core.settings import Settings, Trainer
from finetune_operator.core.times import stamp
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import Conflict, NotFound
from finetune_operator.loop.watch import list_watch
from finetune_operator.training_bundle import training_bundle
from waiting import eventually
from world import OUTPUTS

Object = dict[str, Any]
PROXY = "istio-proxy"


@asynccontextmanager
async def operating(cluster: ApiServer, namespace: str, runtime: str, exit_codes: Mapping[str, int]) -> AsyncIterator[None]:
    """The control loop at work, and a kubelet that ends the container of each stage with ``exit_codes``, 0 without one."""
    bundle = training_bundle()
    place = Settings(
        mode="cluster", operator_version="0.1.0", images=dict.fromkeys(IMAGES, "example.com/image"), bundle_digest=bundle.digest, bundle_archive=bundle.archive,
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


async def play_kubelet(cluster: ApiServer, namespace: str, exit_codes: Mapping[str, int]) -> None:
    """Report that the stage's container of every pod has ended, and that a proxy beside it runs. Statuses are sorted by name."""
    async for change in list_watch(cluster, POD, namespace):
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


async def start(cluster: ApiServer, namespace: str) -> None:
    """Make a run."""
    spec = {"dataset": {"uri": "org/chat"}, "model": {"uri": "org/tiny"}, "evaluation": {"enabled": False}}
    metadata = {"name": "demo", "namespace": namespace}
    await cluster.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec})


async def status_of(cluster: ApiServer, namespace: str) -> Object:
    """Return the status of the run."""
    found: Object = (await cluster.get(FINETUNERUN, namespace, "demo")).get("status") or {}
    return found


async def ended(cluster: ApiServer, namespace: str) -> Object:
    """The run's status at its end."""
    return await eventually(lambda: status_of(cluster, namespace), lambda status: "finishedAt" in status, 90)
