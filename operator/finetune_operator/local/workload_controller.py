"""The controller around :mod:`.workloads`: it watches Jobs, TrainJobs and their pods, and applies each step."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from finetune_operator.api.kinds import JOB, POD, TRAINJOB, Kind
from finetune_operator.core.times import stamp
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import AlreadyExists, ApiError, Conflict, NotFound
from finetune_operator.loop.queue import WorkQueue
from finetune_operator.loop.watch import list_watch

from .workloads import JOBSET_LABEL, Step, job_step, trainjob_step

log = logging.getLogger(__name__)

_Key = tuple[Kind, str, str]
_SELECTORS = {JOB: "batch.kubernetes.io/job-name", TRAINJOB: JOBSET_LABEL}
_KINDS = {kind.name: kind for kind in _SELECTORS}


class WorkloadController:
    """Replaces the Job controller and Kubeflow Trainer on a cluster that has neither."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._cluster = cluster
        self._clock = clock
        self._queue: WorkQueue[_Key] = WorkQueue()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile Jobs and TrainJobs inside this context."""
        jobs = [*(self._list_watch(kind) for kind in (JOB, TRAINJOB, POD)), *(self._work() for _ in range(4))]
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def reconcile(self, kind: Kind, namespace: str, name: str) -> None:
        """Reconcile one workload.

        Raises:
            ApiError: a call failed; the caller must retry.
        """
        try:
            workload = await self._cluster.get(kind, namespace, name)
        except NotFound:
            return
        if workload["metadata"].get("deletionTimestamp"):
            return
        page = await self._cluster.list(POD, namespace, labels={_SELECTORS[kind]: name})
        pods = [pod for pod in page.items if _owner(pod).get("uid") == workload["metadata"]["uid"]]
        now = stamp(self._clock())
        step = job_step(workload, pods, now) if kind == JOB else trainjob_step(workload, pods, now, _port(pods))
        await self._apply(kind, workload, step)

    async def _apply(self, kind: Kind, workload: Object, step: Step) -> None:
        namespace, name = workload["metadata"]["namespace"], workload["metadata"]["name"]
        for pod in step.create:
            with contextlib.suppress(AlreadyExists):
                await self._cluster.create(pod)
        for pod_name in step.delete:
            with contextlib.suppress(NotFound):
                await self._cluster.delete(POD, namespace, pod_name)
        if step.status is not None:
            change = difference(workload.get("status") or {}, {**(workload.get("status") or {}), **step.status})
            if change:
                await self._cluster.patch_status(kind, namespace, name, {"status": change})

    async def _list_watch(self, kind: Kind) -> None:
        async for change in list_watch(self._cluster, kind):
            self._enqueue(kind, change.object)

    def _enqueue(self, kind: Kind, item: Object) -> None:
        namespace = item["metadata"]["namespace"]
        if kind in _SELECTORS:
            self._queue.add((kind, namespace, item["metadata"]["name"]))
        elif (owner := _owner(item)).get("kind") in _KINDS:
            self._queue.add((_KINDS[owner["kind"]], namespace, owner["name"]))

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            failed = False
            try:
                await self.reconcile(*key)
            except (Conflict, NotFound):
                self._queue.add(key)
            except ApiError as error:
                failed = True
                log.warning("%s %s/%s: %s", *key, error)
            finally:
                self._queue.done(key, failed=failed)


def _owner(item: Object) -> Object:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


def _port(pods: list[Object]) -> int:
    """Return the rendezvous port of a TrainJob: that of its existing pods, else a free port."""
    for pod in pods:
        for variable in pod["spec"]["containers"][0].get("env") or ():
            if variable["name"] == "PET_MASTER_PORT":
                return int(variable["value"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
