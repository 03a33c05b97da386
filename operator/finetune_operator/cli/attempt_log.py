"""The log of one attempt of a stage: of its pods as long as they are kept, then the copy in the workspace."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from finetune_operator.api.kinds import POD
from finetune_operator.core import naming
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run, StageRecord
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import Invalid, NotFound

from . import exitcodes
from .log_lines import LogLines
from .place import Place
from .refusal import Refused


async def pods_of(cluster: Cluster, run: Run, record: StageRecord, rank: int | None) -> list[Object]:
    """The pods of a stage's current attempt, of one rank or all: ranks ascending, the newest of each last."""
    page = await cluster.list(POD, run.namespace, labels=naming.labels(run, record.name, record.this_attempt))
    pods = sorted(page.items, key=lambda pod: (rank_of(pod), str(pod["metadata"].get("creationTimestamp", ""))))
    return [pod for pod in pods if rank in (None, rank_of(pod))]


def rank_of(pod: Object) -> int:
    """Which of a training's processes a pod is."""
    return PodReport.parse(pod).rank


def container_of(pod: Object) -> str:
    """Return the name of the container that runs the stage: a cluster may add others to the pod."""
    return naming.container_name((pod["metadata"].get("labels") or {}).get(naming.STAGE_LABEL, ""))


def lines_of(rank: int | None, of: int) -> LogLines:
    """Lines that say which rank they are of, where all were asked for."""
    return LogLines(f"[rank {of}] " if rank is None else "")


async def print_attempt(place: Place, cluster: Cluster, run: Run, record: StageRecord, rank: int | None) -> None:
    """Print the whole log of a stage's last attempt.

    Raises:
        Refused: there is none, or not here.
    """
    newest = {rank_of(pod): pod for pod in await pods_of(cluster, run, record, rank)}
    printed = False
    for number, pod in newest.items():
        try:
            text = await cluster.pod_log(run.namespace, pod["metadata"]["name"], container=container_of(pod))
        except NotFound:
            continue
        except Invalid as error:
            sentence = f"{run.name}: stage {record.name} has written nothing yet: {error.message}"
            raise Refused([sentence], exitcodes.TRY_AGAIN) from None
        lines = lines_of(rank, number)
        lines.feed(text.encode())
        lines.close()
        printed = True
    if not printed:
        _print_kept(place, run, record, rank)


def _print_kept(place: Place, run: Run, record: StageRecord, rank: int | None) -> None:
    for number in count() if rank is None else (rank,):
        kept = place.kept_log(run, record.name, record.this_attempt, number)
        if isinstance(kept, Path):
            lines = lines_of(rank, number)
            lines.feed(kept.read_bytes())
            lines.close()
        elif rank is None and number > 0:
            return
        else:
            raise Refused([kept], exitcodes.NO_INPUT)
