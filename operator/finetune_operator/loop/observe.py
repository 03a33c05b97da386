"""The reads before a decision: objects by name, pods of running stages by label, and ends of logs, as far as no cache has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.api.kinds import CLUSTER_TRAINING_RUNTIME, CONFIGMAP, POD
from finetune_operator.core import naming, shared_objects
from finetune_operator.core.blockers import unexplained
from finetune_operator.core.ended_run import cleanup_in
from finetune_operator.core.observation import Observed, Ref, Rejection, child_ref, controller_of
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.preflight import Causes, Preflight, preflights, problems
from finetune_operator.core.reads import REMOVABLE, active_stages, logs_to_read, lookups, needs
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.times import stamp

from .child_cache import CachedAttempt
from .cluster import Cluster, Object
from .contents import ConfigMapContents
from .errors import AlreadyExists, ApiError, Forbidden, Invalid, NotFound, Transient
from .lineage import Lineage
from .pager import list_all
from .warning_events import WarningEvents

Pods = tuple[PodReport, ...]

LOG_LINES = 50
LOG_BYTES = 16 * 1024
"""How much of the end of a log is read: enough for the message of a failure and for several progress lines."""


@dataclass(frozen=True)
class Caches:
    """What this process already has about a run, so that it is not read again.

    Attributes:
        lineage: which pods belong to a child.
        attempt: returns the current attempt of a stage, or ``None`` if it must be read.
        rejected: the effects that the API server rejected, until they succeed.
        warning_events: reads Events within a rate limit.
        contents: digests of ConfigMaps.
        last_polled: the time of the last read of each pod's log, by pod name. Reads are added to it.
    """

    attempt: Callable[[StageStatus], CachedAttempt | None]
    rejected: Mapping[Ref, Rejection]
    warning_events: WarningEvents
    contents: ConfigMapContents
    last_polled: dict[str, str]
    lineage: Lineage


async def observe(cluster: Cluster, run: Run, settings: Settings, now: datetime, caches: Caches) -> Observed:
    """Return what ``plan`` needs to know of the cluster about ``run``.

    Raises:
        ApiError: a read failed.
    """
    active = active_stages(run)
    cached = {stage_status.name: attempt for stage_status in active if (attempt := caches.attempt(stage_status)) is not None}
    uncached = [stage_status for stage_status in active if stage_status.name not in cached]
    objects = {child_ref(run.stages[name]): attempt.child for name, attempt in cached.items()}
    contents: dict[Ref, str] = {}
    needed = needs(run, settings)
    items, pod_lists = await asyncio.gather(
        _read(cluster, run.namespace, [ref for ref in needed if ref not in objects], caches.contents, contents),
        asyncio.gather(*(_pods(cluster, run, stage_status) for stage_status in uncached)),
    )
    objects |= items
    pods = {name: attempt.pods for name, attempt in cached.items()}
    for stage_status, pod_list in zip(uncached, pod_lists, strict=True):
        pods[stage_status.name] = await _own_pods(cluster, _child_of(run, stage_status, objects), pod_list, caches.lineage)
    log_pods = logs_to_read(run, objects, pods, caches.last_polled, now_stamp=stamp(now), settings=settings)
    caches.last_polled.update(dict.fromkeys(log_pods, stamp(now)))
    further = [ref for ref in shared_objects.wanted(run, objects, pods, now) if ref not in objects]
    further += [ref for ref in lookups(run, objects) if ref not in needed]
    objects |= await _read(cluster, run.namespace, further, caches.contents, contents)
    return Observed(
        settings=settings,
        objects=objects,
        contents=contents,
        rejected=caches.rejected,
        invalid=await _invalid(cluster, preflights(run, settings)),
        warning_events=await caches.warning_events.read(cluster, run.namespace, unexplained(run, objects, pods, now), now),
        pods={name: pod_list for name, pod_list in pods.items() if pod_list},
        logs=await _logs(cluster, run, {pod.name: stage for stage in pods for pod in pods[stage] if pod.name in log_pods}),
        leftovers=await _leftovers(cluster, run) if cleanup_in(run, now) == 0 else {},
    )


async def _read(
    cluster: Cluster, namespace: str, refs: Sequence[Ref], cache: ConfigMapContents, contents: dict[Ref, str]
) -> dict[Ref, Object]:
    """Return the objects of ``refs`` that exist. The digests of ConfigMaps are added to ``contents``."""

    async def get(ref: Ref) -> Object | None:
        try:
            if ref.kind != CONFIGMAP:
                return await cluster.get(ref.kind, namespace, ref.name)
            item, contents[ref] = await cache.read(cluster, namespace, ref.name)
        except NotFound:
            return None
        except Forbidden:
            if ref.kind == CLUSTER_TRAINING_RUNTIME:  # without it, an earlier engine check is not found, and the check runs
                return None
            raise
        return item

    items = await asyncio.gather(*map(get, refs))
    return {ref: item for ref, item in zip(refs, items, strict=True) if item is not None}


async def _pods(cluster: Cluster, run: Run, stage_status: StageStatus) -> list[Object]:
    """Return the pods with the labels of a stage's current attempt."""
    labels = naming.labels(run, stage_status.name, stage_status.this_attempt)
    return [pod async for pod in list_all(cluster, POD, run.namespace, labels=labels)]


def _child_of(run: Run, stage_status: StageStatus, objects: Mapping[Ref, Object]) -> Object | None:
    """Return the metadata of the child of an attempt. One that was deleted is known by its UID; ``None`` if there is none that is ours."""
    ref = child_ref(stage_status)
    child = objects.get(ref)
    uid = stage_status.child_uid or (child["metadata"]["uid"] if child and controller_of(child).get("uid") == run.uid else None)
    return {"kind": ref.kind.name, "metadata": {"name": ref.name, "namespace": run.namespace, "uid": uid}} if uid else None


async def _own_pods(cluster: Cluster, child: Object | None, pods: list[Object], lineage: Lineage) -> Pods:
    """Return those of ``pods`` that belong to a child, ranks ascending."""
    reports = map(PodReport.parse, await lineage.read(cluster, child, pods) if child and pods else ())
    return tuple(sorted(reports, key=lambda pod: (pod.rank, pod.name)))


async def _logs(cluster: Cluster, run: Run, pods: Mapping[str, str]) -> dict[str, str]:
    """Return the ends of the logs of ``pods``, which maps the name of each pod to its stage."""
    logs = {}
    for pod, stage in pods.items():
        container = naming.container_name(stage)
        try:
            logs[pod] = await cluster.pod_log(
                run.namespace, pod, container=container, tail_lines=LOG_LINES, limit_bytes=LOG_BYTES
            )
        except ApiError:  # without the log, the decision is the same and its message has less detail
            continue
    return logs


async def _invalid(cluster: Cluster, dry_runs: Iterable[Preflight]) -> dict[str, Causes]:
    """Return the invalid fields of the pods of stages that have not begun, by stage: the API server validates them in a dry run."""
    invalid = {}
    for preflight in dry_runs:
        try:
            await cluster.create(preflight.manifest, dry_run=True)
        except Invalid as error:
            causes = problems(error.code, error.message, error.causes)
            if causes:
                invalid[preflight.stage] = causes
        except (AlreadyExists, NotFound, Forbidden):  # rejections for other reasons are reported when the child is created
            continue
        except Transient as error:
            if error.code != 500:  # an internal error, such as a webhook that does not respond, may last
                raise
    return invalid


async def _leftovers(cluster: Cluster, run: Run) -> dict[Ref, str]:
    """Return the children that a clean-up removes, with their UIDs."""
    labels = {naming.RUN_LABEL: run.name}
    return {
        Ref(kind, item["metadata"]["name"]): item["metadata"]["uid"]
        for kind in REMOVABLE
        async for item in list_all(cluster, kind, run.namespace, labels=labels)
        if controller_of(item).get("uid") == run.uid
    }
