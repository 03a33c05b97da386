"""The kubelet of local mode runs pods as processes, with real exit codes, signals and termination messages.

It runs all pods of its cluster, or those bound to its node, so tests can use it as the kubelet of a control plane. Images are
ignored: ``python`` is the current interpreter. A pod's folder outlives the kubelet: after a ``kill -9`` of the kubelet the process
continues under its shim, and the next kubelet adopts it instead of starting it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from finetune_operator.api.kinds import POD
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import ApiError, NotFound
from finetune_operator.loop.watch import list_watch

from .pod_worker import Node, PodWorker

log = logging.getLogger(__name__)


class ProcessKubelet:
    """Runs the pods of a cluster as processes; with ``name``, only those bound to the node with that name."""

    def __init__(self, node: Node, name: str | None = None) -> None:
        self._node = node
        self._name = name
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run pods inside this context; at its end, stop their processes and set the status of the pods."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self._shut_down()

    def kill(self) -> None:
        """Kill every process without a grace period."""
        for worker in self._workers.values():
            worker.kill()

    async def _watch(self) -> None:
        async for change in list_watch(self._node.cluster, POD):
            if change.type == "DELETED":
                self._stop(change.object["metadata"]["uid"])
            else:
                self._on_pod(change.object)

    def _on_pod(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if self._name is not None and pod["spec"].get("nodeName") != self._name:
            return
        if uid not in self._tasks:
            self._workers[uid] = PodWorker(self._node, pod)
            self._tasks[uid] = asyncio.create_task(self._run_worker(self._workers[uid]))
        if pod["metadata"].get("deletionTimestamp"):
            self._stop(uid)

    def _stop(self, uid: str) -> None:
        if uid in self._workers:
            self._workers[uid].stop()

    async def _run_worker(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except NotFound:
            pass  # deleted with grace period 0 while it ran: its process was stopped, and no object is left to update
        except ApiError as error:
            log.warning("pod %s: %s", worker.name, error)
        finally:
            del self._workers[worker.uid], self._tasks[worker.uid]

    async def _shut_down(self) -> None:
        for worker in self._workers.values():
            worker.stop(shutdown=True)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
