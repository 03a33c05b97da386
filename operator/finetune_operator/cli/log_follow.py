"""A stage's log as it grows, through all its pods and attempts."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, field

from finetune_operator.api.kinds import FINETUNERUN, POD
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import Invalid, NotFound, Transient

from . import exitcodes
from .attempt_log import container_of, lines_of, pods_of, print_attempt, rank_of
from .backend import Backend
from .errors import CommandError
from .log_lines import LogLines

POLL_SECONDS = 0.5
_REST_SECONDS = 30.0
"""How long the pods of a stage that has ended may still say something."""


@dataclass
class _Streams:
    """The logs that are being printed, by the pods' uids."""

    cluster: Cluster
    rank: int | None
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def begin(self, pod: Object) -> None:
        """Print the log of a pod, unless that was begun before."""
        uid = pod["metadata"]["uid"]
        if uid not in self.tasks:
            lines = lines_of(self.rank, rank_of(pod))
            self.tasks[uid] = asyncio.create_task(_print_growing(self.cluster, pod, lines))

    async def wait(self, seconds: float) -> None:
        """Wait until all have ended, at most that long; what went wrong in one is raised."""
        open_ = [task for task in self.tasks.values() if not task.done()]
        if not open_:
            await asyncio.sleep(0)
        else:
            await asyncio.wait(open_, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in self.tasks.values():
            if task.done():
                task.result()

    async def close(self) -> None:
        """End them."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def follow_stage(backend: Backend, cluster: Cluster, run: Run, stage: str, rank: int | None) -> None:
    """Print a stage's log until the stage or the run has ended; a new attempt is gone over to.

    Raises:
        CommandError: the run was deleted, or the logs of an attempt that has ended are no longer there.
    """
    streams, attempt = _Streams(cluster, rank), 0
    try:
        while True:
            stage_status = run.stages.get(stage)
            if stage_status is not None and stage_status.child_name:
                if attempt not in (0, stage_status.attempt):
                    await streams.wait(_REST_SECONDS)
                    print(f"{run.name}: attempt {stage_status.attempt} of stage {stage}", file=sys.stderr)
                attempt = stage_status.attempt
                for pod in await pods_of(cluster, run, stage_status, rank):
                    streams.begin(pod)
            if run.ended or (stage_status is not None and stage_status.ended):
                await streams.wait(_REST_SECONDS)
                if not streams.tasks and stage_status is not None and stage_status.child_name:
                    await print_attempt(backend, cluster, run, stage_status, rank)
                return
            await asyncio.gather(streams.wait(POLL_SECONDS), asyncio.sleep(POLL_SECONDS))
            run = await _again(cluster, run)
    finally:
        await streams.close()


async def _again(cluster: Cluster, run: Run) -> Run:
    try:
        found = Run.parse(await cluster.get(FINETUNERUN, run.namespace, run.name))
    except Transient:
        return run
    except NotFound:
        found = None
    if found is None or found.uid != run.uid:
        raise CommandError([f"{run.name}: was deleted."], exitcodes.NO_INPUT)
    return found


async def _print_growing(cluster: Cluster, pod: Object, lines: LogLines) -> None:
    """Print a pod's log until the pod has ended. A connection that breaks is begun again; what was seen is skipped."""
    seen = 0
    over = False
    try:
        while not over:
            over = await _has_ended(cluster, pod)  # before the log is read: then it is read to its end
            metadata = pod["metadata"]
            position = 0
            try:
                async with aclosing(
                    cluster.follow_log(metadata["namespace"], metadata["name"], container=container_of(pod))
                ) as pieces:
                    async for piece in pieces:
                        lines.feed(piece[max(0, seen - position) :])
                        position += len(piece)
                        seen = max(seen, position)
            except Transient:
                over = False
            except (Invalid, NotFound):
                pass  # its container has not started yet, or it is gone: the next look tells
            if not over:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        lines.close()


async def _has_ended(cluster: Cluster, pod: Object) -> bool:
    metadata = pod["metadata"]
    try:
        found = await cluster.get(POD, metadata["namespace"], metadata["name"])
    except NotFound:
        return True
    except Transient:
        return False
    return found["metadata"]["uid"] != metadata["uid"] or PodReport.parse(found).done
