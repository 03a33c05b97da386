"""Removal of children that still run although their stage has ended, so that they hold no GPU and no quota.

A container that another component added to a pod (the proxy of a service mesh, an agent) may never end. The Job then stays active.
"""

from __future__ import annotations

from .blockers import reason_of_rejection
from .decision import Delete
from .observation import ChildState, child_ref, child_state, controller_of
from .plan_builder import PlanBuilder
from .run import StageStatus
from .times import seconds_between

SIDECAR_SECONDS = 10.0
"""How long sidecars may take to end after a stage has succeeded: if they end, the pods are kept with their logs."""
_POLL_SECONDS = 1.0


def holds(builder: PlanBuilder, stage_status: StageStatus) -> bool:
    """Return whether containers of a stage's child still run: the child has not ended, and not all of its pods have."""
    child = builder.observed.child(stage_status)
    if child is None or child_state(child) in (ChildState.SUCCEEDED, ChildState.FAILED):
        return False
    pods = builder.observed.pods.get(stage_status.name, ())
    if pods and all(pod.over for pod in pods):
        return False
    return bool(controller_of(child).get("uid") == builder.run.uid)


def remove(builder: PlanBuilder, stage_status: StageStatus) -> bool:
    """Delete a child that still runs, and return whether it runs. A child whose pods have all ended stays, for its logs."""
    if not holds(builder, stage_status):
        return False
    ref = child_ref(stage_status)
    builder.effects.append(Delete(ref, builder.observed.objects[ref]["metadata"]["uid"]))
    rejected = builder.observed.rejected.get(ref)
    if rejected is not None:
        builder.blockers.append((reason_of_rejection(rejected)[0], f"stage {stage_status.name}: {rejected.message}"))
    return True


def release(builder: PlanBuilder, stage_status: StageStatus) -> None:
    """Delete the child of a stage that has ended if its sidecars do not end in time."""
    if not stage_status.releasing:
        return
    child = builder.observed.child(stage_status)
    if child is None or child["metadata"].get("deletionTimestamp") or not holds(builder, stage_status):
        builder.set_stage(stage_status.but(releasing=False))
        return
    left = (
        SIDECAR_SECONDS - (seconds_between(stage_status.finished_at, builder.time) or 0.0)
        if stage_status.state == "Succeeded"
        else 0.0
    )
    if left > 0:
        builder.requeue_after(left)
    else:
        remove(builder, stage_status)
        builder.requeue_after(_POLL_SECONDS)
