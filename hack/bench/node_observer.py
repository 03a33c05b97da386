"""Times of events on a real node: from watches of the API server, and from containerd's events.

All times are those of this machine's one clock. The kubelet's own words have whole seconds only; containerd's are finer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, TRAINJOB, Kind
from finetune_operator.core.naming import RUN_LABEL, STAGE_LABEL
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.watch import list_watch

Object = dict[str, Any]
BARE_RUN, BARE_STAGE = "bench.example.com/run", "bench.example.com/stage"
"""Labels of pods that the operator does not select."""
_EVENT = re.compile(r"(\S+ \S+) \+0000 UTC \S+ /tasks/(start|exit) (\{.*\})")


@dataclass
class Pod:
    """A stage's pod, with the times at which the API server reported its states.

    Attributes:
        placed: it has a node.
        running: its container runs.
        ended: its container has ended, with ``code``.
    """

    stage: str
    made: float
    placed: float | None = None
    running: float | None = None
    ended: float | None = None
    code: int | None = None
    container: str = ""
    phase: str = ""


@dataclass
class Run:
    """A run: its pods, the creation time of each stage's Job or TrainJob, and the time of its final status."""

    pods: dict[str, Pod] = field(default_factory=dict)
    children: dict[str, float] = field(default_factory=dict)
    finished: float | None = None
    status: Object = field(default_factory=dict)

    def of(self, stage: str) -> Pod:
        """Return the one pod of a stage."""
        (pod,) = (pod for pod in self.pods.values() if pod.stage == stage)
        return pod

    def have_ended(self, stages: Iterable[str]) -> bool:
        """Return whether the containers of these stages have ended.

        Raises:
            SystemExit: one of them failed.
        """
        ended = [pod for pod in self.pods.values() if pod.ended is not None]
        if any(pod.code for pod in ended):
            raise SystemExit(f"a stage failed: {ended}")
        return set(stages) <= {pod.stage for pod in ended}


class NodeObserver:
    """Observes the runs and pods of one namespace.

    Attributes:
        runs: runs of the operator and of the bare client, by name.
        started, exited: times of containerd's events, by container.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.started: dict[str, float] = {}
        self.exited: dict[str, float] = {}
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def watching(self, server: ApiServer, namespace: str, events: list[str]) -> AsyncIterator[None]:
        """Record all events in this context; ``events`` is the command that prints those of containerd."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch(server, kind, namespace)) for kind in (FINETUNERUN, JOB, TRAINJOB, POD)]
            tasks.append(group.create_task(self._listen(events)))
            yield
            for task in tasks:
                task.cancel()

    def have_ended(self, name: str, stages: Iterable[str]) -> bool:
        """Return the same as :meth:`Run.have_ended`, and false for a run without events."""
        return name in self.runs and self.runs[name].have_ended(stages)

    async def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until ``condition`` holds.

        Raises:
            TimeoutError: it does not hold in time.
        """
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    async def _watch(self, server: ApiServer, kind: Kind, namespace: str) -> None:
        async for change in list_watch(server, kind, namespace):
            if change.type != "DELETED":
                self._record(kind, change.object, time.time())
                await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _record(self, kind: Kind, document: Object, now: float) -> None:
        name, labels = document["metadata"]["name"], document["metadata"].get("labels") or {}
        if kind is FINETUNERUN:
            run = self.runs.setdefault(name, Run())
            run.status = document.get("status") or {}
            if run.finished is None and "finishedAt" in run.status:
                run.finished = now
            return
        owner, stage = labels.get(RUN_LABEL) or labels.get(BARE_RUN), labels.get(STAGE_LABEL) or labels.get(BARE_STAGE)
        if owner is None or stage is None:
            return
        run = self.runs.setdefault(owner, Run())
        if kind is POD:
            _note(run.pods.setdefault(name, Pod(stage, now)), document.get("status") or {}, now)
        else:  # a TrainJob's own Job has the same labels, and comes after it
            run.children.setdefault(stage, now)

    async def _listen(self, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                if found := _EVENT.match(line.decode()):
                    times, about = (self.started if found[2] == "start" else self.exited), json.loads(found[3])
                    times[about["container_id"]] = datetime.fromisoformat(f"{found[1]}+00:00").timestamp()
                    await self._notify()
            raise SystemExit("ctr events: ended; see the log of containerd")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _note(pod: Pod, status: Object, now: float) -> None:
    """Record the states that a pod's status reports for the first time."""
    pod.phase = status.get("phase", "")
    if pod.placed is None and any(
        one["type"] == "PodScheduled" and one["status"] == "True" for one in status.get("conditions") or ()
    ):
        pod.placed = now
    for container in status.get("containerStatuses") or ():
        pod.container = (container.get("containerID") or "").rpartition("/")[2] or pod.container
        if pod.running is None and "running" in container["state"]:
            pod.running = now
        if pod.ended is None and "terminated" in container["state"]:
            pod.ended, pod.code = now, container["state"]["terminated"]["exitCode"]
