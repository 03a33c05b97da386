"""GPU seconds of a run: the time from start to end of every container that held GPUs, times its GPUs.

A container's time is counted once, when its attempt ends or its pods have stopped for a suspension. ``podsStartedAt`` of the stage marks
what is not counted yet, so that pods which disappear (evicted, deleted, a lost node) are counted until the operator notices it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .blockers import expected_pods
from .plan_builder import PlanBuilder
from .pod_report import PodReport
from .run import StageStatus
from .stages import PROGRAMS
from .times import seconds_between


def record_start(builder: PlanBuilder, stage_status: StageStatus, pods: Sequence[PodReport]) -> StageStatus:
    """Return the status of a stage with the time when the first container of its attempt started, where it holds GPUs."""
    started = [pod.started_at for pod in pods if pod.started_at]
    if stage_status.pods_started_at or not started or not _gpus(builder, stage_status):
        return stage_status
    return stage_status.but(pods_started_at=min(started))


def have_stopped(builder: PlanBuilder, stage_status: StageStatus) -> bool:
    """Return whether no container of a stage runs any more: pods that are being deleted may run for some time."""
    return all(pod.done or not pod.started_at for pod in builder.observed.pods.get(stage_status.name, ()))


def count(builder: PlanBuilder, stage_status: StageStatus) -> StageStatus:
    """Add the container time of an attempt whose pods have stopped to ``status.usage``. Return the status of its stage."""
    if not stage_status.pods_started_at:
        return stage_status
    usage = builder.get("usage") or {}
    seconds = _container_seconds(builder, stage_status, stage_status.pods_started_at) * _gpus(builder, stage_status)
    builder.fields["usage"] = {**usage, "gpuSeconds": usage.get("gpuSeconds", 0.0) + seconds}
    return stage_status.but(pods_started_at=None)


def _container_seconds(builder: PlanBuilder, stage_status: StageStatus, since: str) -> float:
    pods = builder.observed.pods.get(stage_status.name, ())
    ends = [(pod.started_at, pod.ended_at or builder.time) for pod in pods if pod.started_at and pod.started_at >= since]
    missing = expected_pods(builder.run, stage_status) - len(pods)
    ends += [(since, builder.time)] * missing
    return sum(max(0.0, seconds_between(start, end) or 0.0) for start, end in ends)


def _gpus(builder: PlanBuilder, stage_status: StageStatus) -> int:
    return PROGRAMS[stage_status.name].pod(builder.run).gpus
