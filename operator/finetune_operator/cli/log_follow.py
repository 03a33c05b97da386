"""Follows the log of a stage through all its pods and attempts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from finetune_operator.api.kinds import FINETUNERUN, POD
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import Invalid, NotFound, Transient
from finetune_operator.loop.lineage import Lineage

from . import exit_status
from .attempt_log import container_of, lines_of, pods_of, print_attempt, rank_of
from .backend import Backend
from .echo import echo
from .errors import CommandError
from .log_lines import LogLines

POLL_SECONDS = 0.5
_DRAIN_SECONDS = 30.0
"""How long the logs of an ended stage may still grow, in seconds."""


@dataclass
class _Streams:
    """The logs that are being printed, by pod UID."""

    cluster: Cluster
    rank: int | None
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def begin(self, pod: Object) -> None:
        """Start printing the log of a pod, once."""
        uid = pod["metadata"]["uid"]
        if uid not in self.tasks:
            lines = lines_of(self.rank, rank_of(pod))
            self.tasks[uid] = asyncio.create_task(_print_until_end(self.cluster, pod, lines))

    async def wait(self, seconds: float) -> None:
        """Wait until all logs have ended, at most ``seconds``. Raises the error of a log that failed."""
        running = [task for task in self.tasks.values() if not task.done()]
        if not running:
            await asyncio.sleep(0)
        else:
            await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in self.tasks.values():
            if task.done():
                task.result()

    async def close(self) -> None:
        """Stop printing."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def follow_stage(backend: Backend, cluster: Cluster, run: Run, stage: str, rank: int | None) -> None:
    """Print the log of a stage until the stage or the run has ended. Continues with each new attempt.

    Raises:
        CommandError: the run was deleted, or the log of an ended attempt no longer exists.
    """
    streams, lineage, attempt = _Streams(cluster, rank), Lineage(), 0
    try:
        while True:
            stage_status = run.stages.get(stage)
            if stage_status is not None and stage_status.child_name:
                if attempt not in (0, stage_status.attempt):
                    await streams.wait(_DRAIN_SECONDS)
                    echo(f"{run.name}: attempt {stage_status.attempt} of stage {stage}", err=True)
                attempt = stage_status.attempt
                for pod in await pods_of(cluster, run, stage_status, rank, lineage):
                    streams.begin(pod)
            if run.ended or (stage_status is not None and stage_status.ended):
                await streams.wait(_DRAIN_SECONDS)
                if not streams.tasks and stage_status is not None and stage_status.child_name:
                    await print_attempt(backend, cluster, run, stage_status, rank)
                return
            await asyncio.gather(streams.wait(POLL_SECONDS), asyncio.sleep(POLL_SECONDS))
            run = await _refreshed(cluster, run)
    finally:
        await streams.close()


async def _refreshed(cluster: Cluster, run: Run) -> Run:
    try:
        found = Run.parse(await cluster.get(FINETUNERUN, run.namespace, run.name))
    except Transient:
        return run
    except NotFound:
        found = None
    if found is None or found.uid != run.uid:
        raise CommandError([f"{run.name}: the run was deleted."], exit_status.NO_INPUT)
    return found


async def _print_until_end(cluster: Cluster, pod: Object, lines: LogLines) -> None:
    """Print a pod's log until the pod has ended. After a reconnect, printed bytes are skipped."""
    printed = 0
    ended = False
    try:
        while not ended:
            ended = await _has_ended(cluster, pod)  # read before the log, so that the log of an ended pod is complete
            metadata = pod["metadata"]
            position = 0
            try:
                async with aclosing(
                    cluster.follow_log(metadata["namespace"], metadata["name"], container=container_of(pod))
                ) as pieces:
                    async for piece in pieces:
                        lines.feed(piece[max(0, printed - position) :])
                        position += len(piece)
                        printed = max(printed, position)
            except Transient:
                ended = False
            except (Invalid, NotFound):
                pass  # the container has not started yet, or the pod was deleted
            if not ended:
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
