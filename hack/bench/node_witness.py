"""Who did what when on a real node: what the API server tells a watcher, and what containerd tells of its containers.

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
"""Labels of pods that are none of the operator's, so that it has no work with them."""
_EVENT = re.compile(r"(\S+ \S+) \+0000 UTC \S+ /tasks/(start|exit) (\{.*\})")


@dataclass
class Pod:
    """A stage's pod, by when the API server told of it.

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
    """What was seen of a run: its pods, when each stage's Job or TrainJob was made, and when its status was final."""

    pods: dict[str, Pod] = field(default_factory=dict)
    children: dict[str, float] = field(default_factory=dict)
    finished: float | None = None
    status: Object = field(default_factory=dict)

    def of(self, stage: str) -> Pod:
        """The one pod of a stage."""
        (pod,) = (pod for pod in self.pods.values() if pod.stage == stage)
        return pod

    def have_ended(self, stages: Iterable[str]) -> bool:
        """Whether the containers of these stages have ended.

        Raises:
            SystemExit: one of them failed.
        """
        ended = [pod for pod in self.pods.values() if pod.ended is not None]
        if any(pod.code for pod in ended):
            raise SystemExit(f"a stage failed: {ended}")
        return set(stages) <= {pod.stage for pod in ended}


class Witness:
    """Sees everything in one namespace.

    Attributes:
        runs: by name, those of the operator and the bare ones.
        started, exited: by container, when containerd says that its process did.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.started: dict[str, float] = {}
        self.exited: dict[str, float] = {}
        self._news = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def watching(self, server: ApiServer, namespace: str, events: list[str]) -> AsyncIterator[None]:
        """Inside this context nothing is missed; ``events`` is the command that prints containerd's events."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch(server, kind, namespace)) for kind in (FINETUNERUN, JOB, TRAINJOB, POD)]
            tasks.append(group.create_task(self._listen(events)))
            yield
            for task in tasks:
                task.cancel()

    def have_ended(self, name: str, stages: Iterable[str]) -> bool:
        """As :meth:`Run.have_ended`, of a run that may not have been seen yet."""
        return name in self.runs and self.runs[name].have_ended(stages)

    async def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until ``condition`` holds of what was seen.

        Raises:
            TimeoutError: it did not in that time.
        """
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(condition)

    async def _watch(self, server: ApiServer, kind: Kind, namespace: str) -> None:
        async for change in list_watch(server, kind, namespace):
            if change.type != "DELETED":
                self._see(kind, change.object, time.time())
                await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _see(self, kind: Kind, document: Object, now: float) -> None:
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
        else:  # a TrainJob's own Job bears the same labels, and comes after it
            run.children.setdefault(stage, now)

    async def _listen(self, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                if found := _EVENT.match(line.decode()):
                    times, about = (self.started if found[2] == "start" else self.exited), json.loads(found[3])
                    times[about["container_id"]] = datetime.fromisoformat(f"{found[1]}+00:00").timestamp()
                    await self._tell()
            raise SystemExit("containerd tells nothing more")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _note(pod: Pod, status: Object, now: float) -> None:
    """Keep what a pod's status says for the first time."""
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
