"""Read what the next decision needs: live GETs by name, pods of the running stages by label, ends of logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from finetune_operator.api.kinds import CONFIGMAP, POD
from finetune_operator.core import naming
from finetune_operator.core.observation import (
    REMOVABLE,
    ChildState,
    Observed,
    PodReport,
    Ref,
    active_stages,
    child_ref,
    child_state,
    cleanup_due,
    log_wanted,
    needs,
)
from finetune_operator.core.obstacles import unexplained
from finetune_operator.core.run import Run, StageRecord
from finetune_operator.core.settings import Settings
from finetune_operator.core.times import stamp

from .cluster import Cluster, Object
from .complaints import Complaints, complaints
from .errors import ApiError, NotFound

Pods = tuple[PodReport, ...]

LOG_LINES = 50
LOG_BYTES = 16 * 1024
"""What is read of a log's end: enough for the last words of a failure, and for several progress lines."""


async def observe(
    cluster: Cluster,
    run: Run,
    settings: Settings,
    now: datetime,
    *,
    told: Callable[[StageRecord], Pods | None] = lambda _record: None,
    ask: Complaints | None = None,
) -> Observed:
    """Everything that ``plan`` needs to know of the cluster about ``run``.

    ``told`` answers with the pods of a stage's attempt where the watches have told of all of them; ``ask`` bounds how often Events
    are read.

    Raises:
        ApiError: a read failed; the caller tries again later.
    """
    refs, stages = needs(run, settings), active_stages(run)
    found = await asyncio.gather(*(_get(cluster, run.namespace, ref) for ref in refs))
    objects = {ref: item for ref, item in zip(refs, found, strict=True) if item is not None}
    reports = await asyncio.gather(*(_pods(cluster, run, record, objects.get(child_ref(record)), told) for record in stages))
    pods = {record.name: report for record, report in zip(stages, reports, strict=True)}
    logs = await _logs(cluster, run, pods, settings=settings, now=now)
    return Observed(
        settings=settings,
        objects=objects,
        complaints=await (ask or complaints)(cluster, run.namespace, unexplained(run, objects, pods, now), now),
        pods={name: report for name, report in pods.items() if report},
        logs=logs,
        leftovers=await _leftovers(cluster, run) if cleanup_due(run, stamp(now)) else (),
    )


async def _get(cluster: Cluster, namespace: str, ref: Ref) -> Object | None:
    read = cluster.get_metadata if ref.kind == CONFIGMAP else cluster.get  # one holds the training program
    try:
        return await read(ref.kind, namespace, ref.name)
    except NotFound:
        return None


async def _pods(
    cluster: Cluster, run: Run, record: StageRecord, child: Object | None, told: Callable[[StageRecord], Pods | None]
) -> Pods:
    if child is not None and child_state(child) in (ChildState.ACTIVE, ChildState.SUSPENDED):  # how it ended is asked live
        known = told(record)
        if known is not None:
            return known
    page = await cluster.list(POD, run.namespace, labels=naming.labels(run, record.name, record.this_attempt))
    return tuple(sorted((PodReport.parse(pod) for pod in page.items), key=lambda pod: (pod.rank, pod.name)))


async def _logs(
    cluster: Cluster, run: Run, pods: dict[str, tuple[PodReport, ...]], *, settings: Settings, now: datetime
) -> dict[str, str]:
    # One stage's progress is told at a time: while there is fresh news of it, no other stage is asked.
    last, logs = (run.status.get("progress") or {}).get("lastReport"), {}
    for record in active_stages(run):
        pod = log_wanted(record, pods[record.name], last, stamp(now), settings)
        if pod is not None:
            try:
                logs[pod] = await cluster.pod_log(run.namespace, pod, tail_lines=LOG_LINES, limit_bytes=LOG_BYTES)
            except ApiError:  # a log is evidence, not truth: without it the decision is only less well explained
                continue
    return logs


async def _leftovers(cluster: Cluster, run: Run) -> tuple[Ref, ...]:
    found = []
    for kind in REMOVABLE:
        page = await cluster.list(kind, run.namespace, labels={naming.RUN_LABEL: run.name})
        found += [Ref(kind, item["metadata"]["name"]) for item in page.items if _owned(item, run)]
    return tuple(found)


def _owned(item: Object, run: Run) -> bool:
    return any(owner.get("uid") == run.uid for owner in item["metadata"].get("ownerReferences") or ())
