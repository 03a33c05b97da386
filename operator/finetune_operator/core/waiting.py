"""An attempt whose child exists and has not ended: suspend it, resume it, create what its pods lack, report its blocker."""

from __future__ import annotations

from datetime import datetime

from finetune_operator.api import reasons

from . import naming, ownership, shared_objects
from .blockers import NO_PODS_SECONDS, Blocker, blocker, child_seconds, reason_of_rejection
from .decision import Patch
from .diagnosis import Diagnosis
from .observation import Ref, child_ref, is_held
from .paths import Object
from .plan_builder import PlanBuilder
from .pod_report import PodReport
from .reads import poll_seconds, shared_refs
from .run import StageStatus

STARTING_SECONDS = 2.5
"""Time between two reads of a child that was just created. Controllers report within seconds why pods do not start."""
LONGEST_STARTING_SECONDS = 60.0
STOP_SECONDS = 120
"""Time after which a suspended child is deleted if its pods still run."""
_LEFTOVER_SECONDS = 2.0
"""Time between two reads of an object of an earlier run of the same name, which is about to be garbage-collected."""


def wait(builder: PlanBuilder, stage_status: StageStatus, child: Object, pods: tuple[PodReport, ...]) -> Diagnosis | None:
    """Follow an attempt that has not ended. Return why it must end, or ``None``."""
    held = bool(child.get("spec", {}).get("suspend"))
    if held and pods and builder.suspended_for > STOP_SECONDS:
        return Diagnosis(reasons.SHUT_DOWN, f"Its pods did not stop within {STOP_SECONDS} s after the run was suspended.")
    missing, conflict = _check_shared_objects(builder, stage_status, child)
    if shared_objects.renew(builder, missing):
        before = shared_refs(builder.run)
        for ref in shared_refs(builder.view):
            if ref in missing or ref not in before:
                shared_objects.create(builder, ref)
        return Diagnosis(reasons.CHILD_LOST, "A ConfigMap of the release that started the run was deleted.")
    for ref in missing:
        shared_objects.create(builder, ref)
    _suspend_or_resume(builder, stage_status, child, hold=builder.suspended or conflict is not None)
    if conflict is not None:
        builder.block(stage_status, reasons.NAME_CONFLICT, conflict)
        builder.requeue_after(builder.observed.settings.progress_seconds)
        return None
    found = _own_blocker(builder, stage_status, child, missing)
    if found is not None:
        builder.block(stage_status, *found)
    else:
        _report(builder, stage_status, child, pods)
    return None


def wait_for_leftover(builder: PlanBuilder, stage_status: StageStatus, item: Object) -> bool:
    """Wait if an object belongs to an earlier run of the same name. Return whether it does."""
    if not ownership.is_leftover(builder.run, item):
        return False
    message = f"{item['metadata']['name']} of an earlier run is being removed."
    builder.set_stage(stage_status.but(reason=reasons.WAITING, message=message))
    builder.requeue_after(_LEFTOVER_SECONDS)
    return True


def _check_shared_objects(builder: PlanBuilder, stage_status: StageStatus, child: Object) -> tuple[tuple[Ref, ...], str | None]:
    """Return the shared objects that the attempt's pods lack and that do not exist, and a sentence about one that is not ours."""
    observed = builder.observed
    wanted = tuple(
        shared_objects.to_read_for(builder.run, stage_status, child, observed.pods.get(stage_status.name, ()), builder.now)
    )
    found = (ownership.conflict(builder.run, ref, observed) for ref in wanted if ref in observed.objects)
    return tuple(ref for ref in wanted if ref not in observed.objects), next((one for one in found if one), None)


def _own_blocker(builder: PlanBuilder, stage_status: StageStatus, child: Object, missing: tuple[Ref, ...]) -> Blocker | None:
    """Return what keeps the operator from continuing the attempt: a rejected effect, or a suspension by someone else."""
    rejected = builder.observed.rejected
    for ref in (*missing, child_ref(stage_status)):  # the child: its suspension
        if ref in rejected:
            return reason_of_rejection(rejected[ref])[0], rejected[ref].message
    if child.get("spec", {}).get("suspend") and not builder.suspended and not is_held(child):
        message = f"{stage_status.child_kind} {stage_status.child_name}: spec.suspend is true, and this operator did not set it"
        return reasons.CHILD_SUSPENDED, message
    return None


def _suspend_or_resume(builder: PlanBuilder, stage_status: StageStatus, child: Object, *, hold: bool) -> None:
    """Suspend the child, or resume one that this operator suspended. A suspension by another controller, such as a queue, stays."""
    held, ours = bool(child.get("spec", {}).get("suspend")), is_held(child)
    if hold and not held:
        annotations: dict[str, str | None] = {naming.HELD_ANNOTATION: naming.MANAGED_BY}
    elif ours and not hold:
        annotations = {naming.HELD_ANNOTATION: None}
    else:
        return
    builder.effects.append(Patch(child_ref(stage_status), {"metadata": {"annotations": annotations}, "spec": {"suspend": hold}}))


def _report(builder: PlanBuilder, stage_status: StageStatus, child: Object, pods: tuple[PodReport, ...]) -> None:
    """Record whether the attempt runs, is suspended, is starting, or what blocks it."""
    warning_events = builder.observed.warning_events
    found = (
        None
        if builder.suspended
        else blocker(builder.view, stage_status, child, pods, warning_events=warning_events, now=builder.now)
    )
    if found is not None:
        builder.block(stage_status, *found)
        builder.requeue_after(builder.observed.settings.progress_seconds)
    elif any(pod.phase == "Running" for pod in pods):
        builder.set_stage(stage_status.but(reason=reasons.RUNNING, message=None))
        builder.requeue_after(poll_seconds(stage_status, builder.time, builder.observed.settings))
    elif bool(child.get("spec", {}).get("suspend")):
        builder.set_stage(stage_status.but(reason=reasons.SUSPENDED, message=None))
    else:
        builder.set_stage(stage_status.but(reason=reasons.STARTING, message=None))
        builder.requeue_after(_starting_pause(child, builder.now))


def _starting_pause(child: Object, now: datetime) -> float:
    """Return the seconds until the next read of a child that has not started.

    They grow with its age, so that many waiting children do not load a full cluster.
    """
    age = child_seconds(child, now)
    pause = min(LONGEST_STARTING_SECONDS, max(STARTING_SECONDS, age))
    return pause if age >= NO_PODS_SECONDS else min(pause, max(STARTING_SECONDS, NO_PODS_SECONDS - age))
