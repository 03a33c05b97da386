"""The workspace stage: the claim and the shared objects exist and are ours before any other stage begins."""

from __future__ import annotations

from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, CONFIGMAP

from . import naming, shared_objects
from .blockers import rejection
from .decision import Create
from .manifests import children
from .observation import Ref
from .plan_builder import PlanBuilder
from .reads import workspace_refs
from .run import StageStatus
from .stages import WORKSPACE
from .waiting import wait_for_leftover


def prepare_workspace(builder: PlanBuilder) -> None:
    """Create what the stages share, and go on once it exists. A claim need not be bound: its first pod binds it."""
    stage_status = builder.stages[WORKSPACE]
    if stage_status.ended:
        _confirm_claim(builder, stage_status)
        return
    if builder.suspended:
        if stage_status.state == "Running":
            builder.set_stage(stage_status.but(reason=reasons.SUSPENDED, message=None))
        return
    _renew_entry(builder)
    objects, refs = builder.observed.objects, workspace_refs(builder.view)
    missing = [ref for ref in refs if ref not in objects]
    foreign = [ref for ref in refs if ref in objects and ref.kind != CLAIM and _is_foreign(builder, ref)]
    if stage_status.state == "Running" and not missing and not foreign:
        _check_claim(builder, stage_status)
        return
    stage_status = stage_status.but(
        state="Running", round=builder.run.round, attempt=1, started_at=stage_status.started_at or builder.time
    )
    if stage_status.reason in reasons.CONTROL_REASONS and missing:  # it stands until everything is there
        builder.block(stage_status, reasons.CONTROL_REASONS[stage_status.reason], stage_status.message or "")
    else:
        builder.set_stage(stage_status.but(reason=reasons.RUNNING, message=None))
    for ref in missing:
        _make(builder, stage_status, ref)
    for ref in foreign:
        _wait_for_removal(builder, stage_status, ref)


def _check_claim(builder: PlanBuilder, stage_status: StageStatus) -> None:
    """Go on with a claim that is bound, or that may become so with its first pod; not with one that has lost its volume."""
    ref = Ref(CLAIM, naming.workspace_claim(builder.view))
    claim = builder.observed.objects[ref]
    bound = (claim.get("status") or {}).get("phase")
    leaving = bool(claim["metadata"].get("deletionTimestamp"))
    if bound == "Lost" or leaving:
        message = f"The claim {ref.name} {'is being deleted' if leaving else 'has lost its volume'}."
        builder.block(stage_status, reasons.CLAIM_LOST, message)
        builder.requeue_after(builder.observed.settings.progress_seconds)
        return
    stage_status = stage_status.but(state="Succeeded", finished_at=builder.time, reason=reasons.SUCCEEDED, message=None)
    if bound != "Bound":
        stage_status = stage_status.but(reason=reasons.CLAIM_NOT_BOUND, message=f"The claim {ref.name} is not bound yet.")
    builder.set_stage(stage_status)


def _confirm_claim(builder: PlanBuilder, stage_status: StageStatus) -> None:
    """A pod whose container has started has the claim mounted, so the claim is bound: no read is needed to know it."""
    pods = (pod for report in builder.observed.pods.values() for pod in report)
    if stage_status.reason == reasons.CLAIM_NOT_BOUND and any(
        pod.phase == "Running" or pod.termination is not None for pod in pods
    ):
        builder.set_stage(stage_status.but(reason=reasons.SUCCEEDED, message=None))


def _is_foreign(builder: PlanBuilder, ref: Ref) -> bool:
    return shared_objects.conflict(builder.view, ref, builder.observed) is not None


def _wait_for_removal(builder: PlanBuilder, stage_status: StageStatus, ref: Ref) -> None:
    """An object of the name is not ours: one of an earlier run is about to be collected, any other is the user's to remove."""
    if wait_for_leftover(builder, stage_status, builder.observed.objects[ref]):
        return
    builder.block(stage_status, reasons.NAME_CONFLICT, shared_objects.conflict(builder.view, ref, builder.observed) or "")
    builder.requeue_after(builder.observed.settings.progress_seconds)


def _renew_entry(builder: PlanBuilder) -> None:
    """Take this release's training program where the one that the run was resolved with is gone with the release before."""
    resolved, digest = builder.get("resolved"), builder.observed.settings.entry_digest
    if (
        Ref(CONFIGMAP, naming.entry_name(resolved["entryDigest"])) not in builder.observed.objects
        and resolved["entryDigest"] != digest
    ):
        builder.fields["resolved"] = {**resolved, "entryDigest": digest}


def _make(builder: PlanBuilder, stage_status: StageStatus, ref: Ref) -> None:
    run, settings = builder.view, builder.observed.settings
    rejected = builder.observed.rejected.get(ref)
    if rejected is not None:
        builder.block(stage_status, rejection(rejected)[0], rejected.message)
    if ref.kind != CLAIM:
        shared_objects.create(builder, ref)
    elif run.resolved.storage.claim_name:
        if stage_status.started_at != builder.time:
            message = f"The claim {ref.name}, which storage.claimName names, does not exist."
            builder.block(stage_status, reasons.CLAIM_NOT_FOUND, message)
        builder.requeue_after(settings.progress_seconds)
    else:
        builder.effects.append(Create(children.claim(run), ref))
