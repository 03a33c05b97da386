"""The log of one attempt of a stage: of its pods while they exist, then the copy in the workspace."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from finetune_operator.api.kinds import POD
from finetune_operator.core import naming
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import Invalid, NotFound
from finetune_operator.loop.lineage import Lineage
from finetune_operator.loop.pager import list_all

from . import exit_status
from .backend import Backend
from .errors import CommandError
from .log_lines import LogLines


async def pods_of(
    cluster: Cluster, run: Run, stage_status: StageStatus, rank: int | None, lineage: Lineage | None = None
) -> list[Object]:
    """Return the pods of a stage's current attempt, of one rank or all: by rank, the newest pod of each rank last.

    Another pod with the same labels is left out: any user who can create pods can copy them. ``lineage``: what earlier calls have read.
    """
    labels = naming.labels(run, stage_status.name, stage_status.this_attempt)
    labeled = [pod async for pod in list_all(cluster, POD, run.namespace, labels=labels)]
    if not labeled or not stage_status.child_uid:  # the operator has not yet seen the child that it created
        return []
    metadata = {"name": stage_status.child_name, "namespace": run.namespace, "uid": stage_status.child_uid}
    child = {"kind": stage_status.child_kind, "metadata": metadata}
    own = await (lineage or Lineage()).read(cluster, child, labeled)
    pods = sorted(own, key=lambda pod: (rank_of(pod), str(pod["metadata"].get("creationTimestamp", ""))))
    return [pod for pod in pods if rank in (None, rank_of(pod))]


def rank_of(pod: Object) -> int:
    """Return the rank of a pod in distributed training."""
    return PodReport.parse(pod).rank


def container_of(pod: Object) -> str:
    """Return the name of the container that runs the stage; a cluster may add sidecars."""
    return naming.container_name((pod["metadata"].get("labels") or {}).get(naming.STAGE_LABEL, ""))


def lines_of(rank: int | None, of: int) -> LogLines:
    """Return the printer for a rank; it prefixes lines with the rank if all ranks are printed."""
    return LogLines(f"[rank {of}] " if rank is None else "")


async def print_attempt(backend: Backend, cluster: Cluster, run: Run, stage_status: StageStatus, rank: int | None) -> None:
    """Print the whole log of a stage's last attempt.

    Raises:
        CommandError: there is no log, or it cannot be read from here.
    """
    newest = {rank_of(pod): pod for pod in await pods_of(cluster, run, stage_status, rank)}
    printed = False
    for number, pod in newest.items():
        try:
            text = await cluster.pod_log(run.namespace, pod["metadata"]["name"], container=container_of(pod))
        except NotFound:
            continue
        except Invalid as error:
            sentence = f"{run.name}: stage {stage_status.name} has no output yet: {error.message}; try again."
            raise CommandError([sentence], exit_status.TRY_AGAIN) from None
        if not text and (pod.get("status") or {}).get("phase") == "Pending":  # the server has no error for a pod without a node
            sentence = (
                f"{run.name}: stage {stage_status.name} has no output yet: its pod is pending; show the reason with:"
                f" finetune describe {run.name}{backend.flags}"
            )
            raise CommandError([sentence], exit_status.TRY_AGAIN)
        lines = lines_of(rank, number)
        lines.feed(text.encode())
        lines.close()
        printed = True
    if not printed:
        _print_archived(backend, run, stage_status, rank)


def _print_archived(backend: Backend, run: Run, stage_status: StageStatus, rank: int | None) -> None:
    for number in count() if rank is None else (rank,):
        kept = backend.archived_log(run, stage_status.name, stage_status.this_attempt, number)
        if isinstance(kept, Path):
            lines = lines_of(rank, number)
            lines.feed(kept.read_bytes())
            lines.close()
        elif rank is None and number > 0:
            return
        else:
            raise CommandError([kept], exit_status.NO_INPUT)
