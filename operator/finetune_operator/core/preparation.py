"""Stage *workspace*: the claim and the shared objects exist, and belong to the run, before any other stage starts."""

from __future__ import annotations

from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM
from finetune_operator.api.stages import ENGINE_CHECK, WORKSPACE

from . import naming, ownership, shared_objects
from .blockers import reason_of_rejection
from .decision import Create
from .manifests import children
from .observation import Ref
from .plan_builder import PlanBuilder
from .reads import shared_refs, workspace_refs
from .run import StageStatus
from .waiting import wait_for_leftover


def prepare_workspace(builder: PlanBuilder) -> None:
    """Create what the stages share, and continue once it exists. The claim need not be bound: its first pod binds it."""
    stage_status = builder.stages[WORKSPACE.name]
    if stage_status.ended:
        _confirm_claim(builder, stage_status)
        return
    if builder.suspended:
        if stage_status.state == "Running":
            builder.set_stage(stage_status.but(reason=reasons.SUSPENDED, message=None))
        return
    objects = builder.observed.objects
    shared_objects.renew(builder, [ref for ref in shared_refs(builder.view) if ref not in objects])
    refs = workspace_refs(builder.view)
    missing = [ref for ref in refs if ref not in objects]
    foreign = [ref for ref in refs if ref in objects and _is_foreign(builder, ref)]
    if stage_status.state == "Running" and not missing and not foreign:
        _check_claim(builder, stage_status)
        return
    stage_status = stage_status.but(
        state="Running", round=builder.run.round, attempt=1, started_at=stage_status.started_at or builder.time
    )
    if stage_status.reason in reasons.OPERATOR_REASONS and missing:  # reported until everything exists
        builder.block(stage_status, reasons.OPERATOR_REASONS[stage_status.reason], stage_status.message or "")
    else:
        builder.set_stage(stage_status.but(reason=reasons.RUNNING, message=None))
    for ref in missing:
        _make(builder, stage_status, ref)
    for ref in foreign:
        _wait_for_removal(builder, stage_status, ref)


def _check_claim(builder: PlanBuilder, stage_status: StageStatus) -> None:
    """Continue with a claim that is bound or that its first pod may bind, but not with one that has lost its volume."""
    ref = Ref(CLAIM, naming.workspace_claim(builder.view))
    claim = builder.observed.objects[ref]
    bound = (claim.get("status") or {}).get("phase")
    leaving = bool(claim["metadata"].get("deletionTimestamp"))
    if bound == "Lost" or leaving:
        message = f"claim {ref.name}: it {'is being deleted' if leaving else 'has lost its volume'}"
        builder.block(stage_status, reasons.CLAIM_LOST, message)
        builder.requeue_after(builder.observed.settings.progress_seconds)
        return
    stage_status = stage_status.but(state="Succeeded", finished_at=builder.time, reason=reasons.SUCCEEDED, message=None)
    if bound != "Bound":
        stage_status = stage_status.but(reason=reasons.CLAIM_NOT_BOUND, message=f"claim {ref.name}: it is not bound yet")
    builder.set_stage(stage_status)


def _confirm_claim(builder: PlanBuilder, stage_status: StageStatus) -> None:
    """Report the claim as bound once a container that mounts it has started, so that no read is needed."""
    mounting = (reports for stage, reports in builder.observed.pods.items() if stage != ENGINE_CHECK.name)
    pods = (pod for reports in mounting for pod in reports)
    if stage_status.reason == reasons.CLAIM_NOT_BOUND and any(
        pod.phase == "Running" or pod.termination is not None for pod in pods
    ):
        builder.set_stage(stage_status.but(reason=reasons.SUCCEEDED, message=None))


def _is_foreign(builder: PlanBuilder, ref: Ref) -> bool:
    return ownership.conflict(builder.view, ref, builder.observed) is not None


def _wait_for_removal(builder: PlanBuilder, stage_status: StageStatus, ref: Ref) -> None:
    """Wait until an object that is not ours is gone: one of an earlier run is garbage-collected, the user removes any other."""
    if wait_for_leftover(builder, stage_status, builder.observed.objects[ref]):
        return
    builder.block(stage_status, reasons.NAME_CONFLICT, ownership.conflict(builder.view, ref, builder.observed) or "")
    builder.requeue_after(builder.observed.settings.progress_seconds)


def _make(builder: PlanBuilder, stage_status: StageStatus, ref: Ref) -> None:
    run, settings = builder.view, builder.observed.settings
    rejected = builder.observed.rejected.get(ref)
    if rejected is not None:
        builder.block(stage_status, reason_of_rejection(rejected)[0], rejected.message)
    if ref.kind != CLAIM:
        shared_objects.create(builder, ref)
    elif run.resolved.storage.claim_name:
        if stage_status.started_at != builder.time:
            message = f"storage.claimName: claim {ref.name} does not exist"
            builder.block(stage_status, reasons.CLAIM_NOT_FOUND, message)
        builder.requeue_after(settings.progress_seconds)
    else:
        builder.effects.append(Create(children.claim(run), ref))
