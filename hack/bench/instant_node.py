"""A kubelet without containers: every pod of a namespace runs for a set time and ends with the result of its stage.

A separate program, so that its processor time is not part of any measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from finetune_contract.codec import encode
from finetune_contract.result import Result, termination_message
from finetune_operator.api.kinds import POD, Kind
from finetune_operator.core.naming import MANAGED_BY, MANAGED_BY_LABEL, STAGE_LABEL
from finetune_operator.core.times import stamp
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.credentials import load_credentials
from finetune_operator.loop.errors import Conflict, NotFound
from finetune_operator.loop.watch import list_watch
from world import OUTPUTS

Object = dict[str, Any]
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
NAME = "bench"
_BEAT_SECONDS = 5.0
_AT_ONCE = 32


async def main() -> None:
    """Run pods until the process is terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="duration of each pod, in seconds")
    options = parser.parse_args()
    credentials = load_credentials(options.kubeconfig)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:
        server = ApiServer(session, credentials.address, tls=credentials.tls())
        node = _Node(server, options.namespace, options.seconds)
        tasks = [asyncio.create_task(work) for work in (node.beat(), node.run_pods())]
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Node:
    def __init__(self, server: ApiServer, namespace: str, seconds: float) -> None:
        self._server, self._namespace, self._seconds = server, namespace, seconds
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def beat(self) -> None:
        """Renew the node's heartbeat, without which it counts as lost."""
        while True:
            await self._server.patch_status(NODE, None, NAME, {"status": _node_status()})
            await asyncio.sleep(_BEAT_SECONDS)

    async def run_pods(self) -> None:
        """Start every pod that the scheduler has bound."""
        async for change in list_watch(self._server, POD, self._namespace, {MANAGED_BY_LABEL: MANAGED_BY}):
            pod = change.object
            uid = pod["metadata"]["uid"]
            if change.type == "DELETED":
                self._known.discard(uid)
            elif pod["spec"].get("nodeName") and uid not in self._known:
                self._known.add(uid)
                task = asyncio.create_task(self._run_pod(pod))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run_pod(self, pod: Object) -> None:
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        began = stamp(datetime.now(UTC))
        running = _status(pod, "Running", {"running": {"startedAt": began}}, began)
        name = pod["metadata"]["name"]
        with contextlib.suppress(NotFound, Conflict):  # it was deleted
            await self._server.patch_status(POD, self._namespace, name, {"status": running})
            await asyncio.sleep(self._seconds)
            ended = {
                "exitCode": 0, "reason": "Completed", "startedAt": began, "finishedAt": stamp(datetime.now(UTC)), "message": _result(pod),
            }  # fmt: skip
            done = _status(pod, "Succeeded", {"terminated": ended}, began)
            await self._server.patch_status(POD, self._namespace, name, {"status": done})


def _node_status() -> Object:
    has = {"cpu": "1000000", "memory": "1Pi", "pods": "1000000", "ephemeral-storage": "1Pi"}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "",
        "lastHeartbeatTime": stamp(datetime.now(UTC)),
    }
    return {"capacity": has, "allocatable": has, "conditions": [ready]}


def _status(pod: Object, phase: str, state: Object, began: str) -> Object:
    container = pod["spec"]["containers"][0]
    status = {
        "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "state": state,
        "ready": phase == "Running", "started": phase == "Running",
    }  # fmt: skip
    conditions = [{"type": "Ready", "status": "True" if phase == "Running" else "False", "lastTransitionTime": began}]
    kept = [one for one in (pod.get("status") or {}).get("conditions") or () if one["type"] != "Ready"]
    return {"phase": phase, "startTime": began, "conditions": [*kept, *conditions], "containerStatuses": [status]}


def _result(pod: Object) -> str:
    """Return the result of the program of the pod's stage, which the operator verifies."""
    stage = pod["metadata"]["labels"][STAGE_LABEL]
    variables = {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}
    metrics = {"arc_easy.acc": 0.5} if stage == "evaluation" else {"seconds": 1.0}
    digest, attempt = variables["FINETUNE_INPUTS_DIGEST"], variables["FINETUNE_ATTEMPT"]
    return termination_message(Result(stage, attempt, digest, "Succeeded", metrics=metrics, outputs=encode(OUTPUTS[stage])))


if __name__ == "__main__":
    asyncio.run(main())
