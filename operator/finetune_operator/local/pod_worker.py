"""Runs one pod as a process, from admission to its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from finetune_contract.result import TERMINATION_MESSAGE_LIMIT
from finetune_operator.api.kinds import POD
from finetune_operator.core.manifests.pod import TERMINATION_LOG
from finetune_operator.core.times import stamp
from finetune_operator.loop.cluster import Cluster, Object

from .machine import Capacity
from .process import Command, Exit, Process
from .volumes import Mounts, NotReady, SecretSource, Volumes, environment, free_folder, inherited_environment

_RETRY_SECONDS = 0.5
_DEFAULT_GRACE = 30


@dataclass(frozen=True)
class Node:
    """What the pods of this machine share: cluster, folders, volumes and resources."""

    cluster: Cluster
    folder: Path
    volumes: Volumes
    capacity: Capacity
    secrets: SecretSource
    adjust: Callable[[Object, dict[str, str]], None] | None = None
    """Changes the environment of a pod's process if the node differs from what the pod expects."""

    def log_path(self, uid: str) -> Path:
        """Return the file with the output of a pod's container."""
        return self.folder / uid / "log"


class PodWorker:
    """Admits a pod, starts or adopts its process, waits, reports its status, and completes its deletion."""

    def __init__(self, node: Node, pod: Object) -> None:
        self._node = node
        self._pod = pod
        self._home = node.folder / self.uid
        self._process = Process(self._home)
        self._stopped = asyncio.Event()
        self._shutdown = False

    @property
    def uid(self) -> str:
        """The pod's uid."""
        uid: str = self._pod["metadata"]["uid"]
        return uid

    @property
    def name(self) -> str:
        """Namespace and name."""
        return f"{self._pod['metadata']['namespace']}/{self._pod['metadata']['name']}"

    def stop(self, *, shutdown: bool = False) -> None:
        """Stop the pod, because it is deleted or because the kubelet shuts down."""
        self._shutdown = self._shutdown or shutdown
        self._stopped.set()

    def kill(self) -> None:
        """Kill its process without a grace period."""
        self._process.signal(signal.SIGKILL)

    async def run(self) -> None:
        """Run the pod until it has ended."""
        try:
            if (self._pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                await self._run_process()
            if self._stopped.is_set():
                await self._confirm_deletion()
        finally:
            self._node.capacity.release(self.uid)
            free_folder(self._home)

    async def _run_process(self) -> None:
        if await self._process.adopt():
            self._node.capacity.admit(self.uid, self._pod)
        elif not (await self._admit() and await self._start()):
            return
        running = {"running": {"startedAt": self._started}}
        await self._report({"phase": "Running", "startTime": self._started}, running, ready=True)
        await self._report_end(await self._wait())

    async def _confirm_deletion(self) -> None:
        """Remove the pod if it was deleted and its process has ended. After a shutdown the pod is kept."""
        metadata = self._pod["metadata"]
        pod = await self._node.cluster.get(POD, metadata["namespace"], metadata["name"])
        if pod["metadata"].get("deletionTimestamp") and pod["metadata"]["uid"] == self.uid:
            await self._node.cluster.delete(POD, metadata["namespace"], metadata["name"], uid=self.uid, grace_seconds=0)

    @property
    def _started(self) -> str:
        return stamp(self._process.started_at or datetime.now(UTC))

    async def _admit(self) -> bool:
        while True:
            admission = self._node.capacity.admit(self.uid, self._pod)
            if admission.rejection:
                await self._patch({"phase": "Failed", "reason": admission.reason, "message": admission.rejection})
                return False
            if not admission.pending:
                return True
            if not await self._wait_pending({"conditions": [_unschedulable(admission.pending)]}):
                return False

    async def _start(self) -> bool:
        while True:
            try:
                mounts = await self._node.volumes.mount(self._pod, self._home)
                await self._process.start(self._command(mounts))
            except NotReady as blocker:
                waiting = {"waiting": {"reason": blocker.reason, "message": blocker.message}}
                conditions = [_unschedulable(blocker.message)] if blocker.reason == "Unschedulable" else []
                if not await self._wait_pending(
                    {"conditions": conditions, "containerStatuses": [_container(self._pod, waiting)]}
                ):
                    return False
                continue
            return await self._process.adopt()

    async def _wait_pending(self, status: Object) -> bool:
        """Report why the pod waits, and wait before the next attempt. Return False if the pod was stopped."""
        await self._patch({"phase": "Pending", **status})
        try:
            async with asyncio.timeout(_RETRY_SECONDS):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False

    def _command(self, mounts: Mounts) -> Command:
        container = self._pod["spec"]["containers"][0]
        termination = str(self._home / "termination-log")
        mounts = Mounts(((TERMINATION_LOG, termination), *mounts.pairs))
        variables = environment(self._pod, mounts, self._node.secrets)
        if self._node.adjust is not None:
            self._node.adjust(self._pod, variables)
        argv = [mounts.rewrite(reason) for reason in (*(container.get("command") or ()), *(container.get("args") or ()))]
        if argv and argv[0] in ("python", "python3"):
            argv[0] = sys.executable
        work = self._home / "work"
        work.mkdir(parents=True, exist_ok=True)
        env = {**inherited_environment(), **variables, **self._node.capacity.devices(self.uid)}
        env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '/usr/bin:/bin')}"
        return Command(tuple(argv), env, work)

    async def _wait(self) -> Exit:
        """Wait for the process. If the pod is stopped, send SIGTERM, and SIGKILL after the grace period."""
        ending = asyncio.create_task(self._process.wait())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait((ending, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if not ending.done():
            self._process.signal(signal.SIGTERM)
            grace = self._pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE)
            await asyncio.wait((ending,), timeout=grace)
        if not ending.done():
            self._process.signal(signal.SIGKILL)
        return await ending

    async def _report_end(self, end: Exit) -> None:
        message = self._termination_message()
        reason = "Completed" if end.code == 0 else "Error" if end.known else "ContainerStatusUnknown"
        terminated = {
            "exitCode": end.code, "reason": reason, "message": message, "startedAt": self._started,
            "finishedAt": stamp(end.finished_at),
        }  # fmt: skip
        status: Object = {"phase": "Succeeded" if end.code == 0 else "Failed"}
        if self._shutdown and end.code != 0:
            status |= {"reason": "Shutdown", "message": "The local runner was stopped.", "conditions": [_disrupted()]}
        await self._report(status, {"terminated": terminated}, ready=False)

    def _termination_message(self) -> str:
        try:
            content = (self._home / "termination-log").read_bytes()
        except FileNotFoundError:
            return ""
        return content[:TERMINATION_MESSAGE_LIMIT].decode(errors="replace")

    async def _report(self, status: Object, state: Object, *, ready: bool) -> None:
        conditions = [*status.pop("conditions", ()), {"type": "Ready", "status": str(ready)}]
        await self._patch({**status, "conditions": conditions, "containerStatuses": [_container(self._pod, state, ready=ready)]})

    async def _patch(self, status: Object) -> None:
        metadata = self._pod["metadata"]
        await self._node.cluster.patch_status(POD, metadata["namespace"], metadata["name"], {"status": status})


def _container(pod: Object, state: Object, *, ready: bool = False) -> Object:
    container = pod["spec"]["containers"][0]
    return {"name": container["name"], "image": container.get("image", ""), "ready": ready, "restartCount": 0, "state": state}


def _unschedulable(message: str) -> Object:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def _disrupted() -> Object:
    return {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
