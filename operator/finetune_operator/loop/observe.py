"""Read what the next decision needs and no watch has told: objects by name, pods of the running stages by label, ends of logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.api.kinds import CONFIGMAP, POD
from finetune_operator.core import naming, shared_objects
from finetune_operator.core.blockers import unexplained
from finetune_operator.core.observation import Observed, Ref, child_ref
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.preflight import Causes, Preflight, preflights, problems
from finetune_operator.core.reads import REMOVABLE, active_stages, logs_to_read, needs
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.terminal import cleanup_in
from finetune_operator.core.times import stamp

from .cluster import Cluster, Object
from .contents import ConfigMapContents
from .errors import AlreadyExists, ApiError, Forbidden, Invalid, NotFound, Transient
from .news import ToldAttempt
from .warning_events import WarningEvents

Pods = tuple[PodReport, ...]

LOG_LINES = 50
LOG_BYTES = 16 * 1024
"""What is read of a log's end: enough for the last words of a failure, and for several progress lines."""


@dataclass(frozen=True)
class Known:
    """What the watches and earlier looks have left, so that less has to be asked.

    Attributes:
        attempt: a stage's attempt, where the watches have told all of it.
        warning_events: asks for Events, within bounds.
        contents: digests of the ConfigMaps that were read.
        looks: when the log of each pod was last asked for; the next look notes it there.
    """

    attempt: Callable[[StageStatus], ToldAttempt | None]
    warning_events: WarningEvents
    contents: ConfigMapContents
    looks: dict[str, str]


async def observe(cluster: Cluster, run: Run, settings: Settings, now: datetime, known: Known) -> Observed:
    """Everything that ``plan`` needs to know of the cluster about ``run``.

    Raises:
        ApiError: a read failed; the caller tries again later.
    """
    told = {
        stage_status.name: attempt for stage_status in active_stages(run) if (attempt := known.attempt(stage_status)) is not None
    }
    objects = {child_ref(run.stages[name]): attempt.child for name, attempt in told.items()}
    asked = [ref for ref in needs(run, settings) if ref not in objects]
    unknown = [stage_status for stage_status in active_stages(run) if stage_status.name not in told]
    contents: dict[Ref, str] = {}
    found, reports = await asyncio.gather(
        _read(cluster, run.namespace, asked, known.contents, contents),
        asyncio.gather(*(_pods(cluster, run, stage_status) for stage_status in unknown)),
    )
    objects |= found
    pods = {name: attempt.pods for name, attempt in told.items()}
    pods |= {stage_status.name: report for stage_status, report in zip(unknown, reports, strict=True)}
    wanted = logs_to_read(run, pods, known.looks, stamp(now), settings)
    known.looks.update(dict.fromkeys(wanted, stamp(now)))
    wanted_objects = [ref for ref in shared_objects.wanted(run, objects, pods, now) if ref not in objects]
    objects |= await _read(cluster, run.namespace, wanted_objects, known.contents, contents)
    return Observed(
        settings=settings,
        objects=objects,
        contents=contents,
        invalid=await _invalid(cluster, preflights(run, settings)),
        warning_events=await known.warning_events(cluster, run.namespace, unexplained(run, objects, pods, now), now),
        pods={name: report for name, report in pods.items() if report},
        logs=await _logs(cluster, run, {pod.name: stage for stage in pods for pod in pods[stage] if pod.name in wanted}),
        leftovers=await _leftovers(cluster, run) if cleanup_in(run, now) == 0 else (),
    )


async def _read(
    cluster: Cluster, namespace: str, refs: Sequence[Ref], known: ConfigMapContents, contents: dict[Ref, str]
) -> dict[Ref, Object]:
    """Those of ``refs`` that exist; what ConfigMaps hold goes into ``contents``."""

    async def get(ref: Ref) -> Object | None:
        try:
            if ref.kind != CONFIGMAP:
                return await cluster.get(ref.kind, namespace, ref.name)
            item, contents[ref] = await known.read(cluster, namespace, ref.name)
        except NotFound:
            return None
        return item

    found = await asyncio.gather(*map(get, refs))
    return {ref: item for ref, item in zip(refs, found, strict=True) if item is not None}


async def _pods(cluster: Cluster, run: Run, stage_status: StageStatus) -> Pods:
    page = await cluster.list(POD, run.namespace, labels=naming.labels(run, stage_status.name, stage_status.this_attempt))
    return tuple(sorted((PodReport.parse(pod) for pod in page.items), key=lambda pod: (pod.rank, pod.name)))


async def _logs(cluster: Cluster, run: Run, pods: Mapping[str, str]) -> dict[str, str]:
    """Return the ends of the logs of ``pods``, which maps the name of each pod to its stage."""
    logs = {}
    for pod, stage in pods.items():
        container = naming.container_name(stage)
        try:
            logs[pod] = await cluster.pod_log(
                run.namespace, pod, container=container, tail_lines=LOG_LINES, limit_bytes=LOG_BYTES
            )
        except ApiError:  # a log is evidence, not truth: without it the decision is only less well explained
            continue
    return logs


async def _invalid(cluster: Cluster, tries: Iterable[Preflight]) -> dict[str, Causes]:
    """Return what the API server says against the pods of stages that have not begun. Only invalid fields count."""
    found = {}
    for preflight in tries:
        try:
            await cluster.create(preflight.manifest, dry_run=True)
        except Invalid as error:
            causes = problems(error.code, error.message, error.causes)
            if causes:
                found[preflight.stage] = causes
        except (AlreadyExists, NotFound, Forbidden):  # what is refused for another reason is told when the child is made
            continue
        except Transient as error:
            if error.code != 500:  # the server's own fault, as that of a webhook that does not answer, may last
                raise
    return found


async def _leftovers(cluster: Cluster, run: Run) -> tuple[Ref, ...]:
    found = []
    for kind in REMOVABLE:
        page = await cluster.list(kind, run.namespace, labels={naming.RUN_LABEL: run.name})
        found += [Ref(kind, item["metadata"]["name"]) for item in page.items if _owned(item, run)]
    return tuple(found)


def _owned(item: Object, run: Run) -> bool:
    return any(owner.get("uid") == run.uid for owner in item["metadata"].get("ownerReferences") or ())
