"""Pods that need no node: each ends at once with the result that its stage would have left, or when the test lets it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from finetune_contract.codec import encode
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import POD
from finetune_operator.core.naming import MANAGED_BY, MANAGED_BY_LABEL, STAGE_LABEL
from finetune_operator.core.times import stamp
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.errors import ApiError
from finetune_operator.loop.watch import list_watch
from world import OUTPUTS

Object = dict[str, Any]


@dataclass
class InstantPods:
    """Pods of a namespace. Those of a stage in ``running`` stay Running, those of one in ``starting`` stay as they are."""

    cluster: ApiServer
    namespace: str
    running: set[str] = field(default_factory=set)
    starting: set[str] = field(default_factory=set)
    _pods: dict[str, Object] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[InstantPods]:
        """Let pods run to their ends inside the context."""
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._step())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.25)  # aiohttp closes the connection of the watch behind its back

    def of(self, stage: str) -> list[Object]:
        """The pods of a stage that are there."""
        return [pod for pod in self._pods.values() if pod["metadata"]["labels"].get(STAGE_LABEL) == stage]

    async def _watch(self) -> None:
        async for change in list_watch(self.cluster, POD, self.namespace, {MANAGED_BY_LABEL: MANAGED_BY}):
            if change.type == "DELETED":
                self._pods.pop(change.object["metadata"]["uid"], None)
            else:
                self._pods[change.object["metadata"]["uid"]] = change.object

    async def _step(self) -> None:
        while True:
            for pod in list(self._pods.values()):
                with contextlib.suppress(ApiError):  # it was deleted, or has changed: the next step sees it
                    await self._move(pod)
            await asyncio.sleep(0.1)

    async def _move(self, pod: Object) -> None:
        phase, stage = pod["status"].get("phase", "Pending"), pod["metadata"]["labels"].get(STAGE_LABEL, "")
        if phase in ("Succeeded", "Failed") or stage in self.starting:
            return
        if pod["metadata"].get("deletionTimestamp"):
            await self.cluster.delete(POD, self.namespace, pod["metadata"]["name"], grace_seconds=0)
        elif stage not in self.running:
            ended = {"exitCode": 0, "reason": "Completed", "finishedAt": stamp(datetime.now(UTC)), "message": _result(pod, stage)}
            await self._write(pod, "Succeeded", {"terminated": ended})
        elif phase == "Pending":
            await self._write(pod, "Running", {"running": {"startedAt": stamp(datetime.now(UTC))}})

    async def _write(self, pod: Object, phase: str, state: Object) -> None:
        container = pod["spec"]["containers"][0]
        status = {
            "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "state": state,
            "ready": phase == "Running",
        }  # fmt: skip
        patch = {"status": {"phase": phase, "containerStatuses": [status]}}
        self._pods[pod["metadata"]["uid"]] = await self.cluster.patch_status(POD, self.namespace, pod["metadata"]["name"], patch)


def _result(pod: Object, stage: str) -> str:
    variables = {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}
    metrics = {"holdout.bits_per_byte": 2.0} if stage in ("evaluation", "baseline") else {"seconds": 1.0}
    digest, attempt = variables["FINETUNE_INPUTS_DIGEST"], variables["FINETUNE_ATTEMPT"]
    return termination_message(Result(stage, attempt, digest, "Succeeded", metrics=metrics, outputs=encode(OUTPUTS[stage])))
