"""The workspace stage: the claim and the shared objects exist and are ours before any other stage begins."""

from __future__ import annotations

from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, CONFIGMAP

from . import naming, shared_objects
from .decision import Create
from .draft import Draft
from .manifests import children
from .observation import Ref, workspace_refs
from .obstacles import refusal
from .run import StageRecord
from .stages import WORKSPACE
from .waiting import wait_for_leftover


def prepare_workspace(draft: Draft) -> None:
    """Create what the stages share, and go on once it exists. A claim need not be bound: its first pod binds it."""
    record = draft.records[WORKSPACE]
    if record.ended:
        _confirm_claim(draft, record)
        return
    if draft.suspended:
        if record.state == "Running":
            draft.record(record.but(reason=reasons.SUSPENDED, message=None))
        return
    _renew_entry(draft)
    objects, refs = draft.observed.objects, workspace_refs(draft.view)
    missing = [ref for ref in refs if ref not in objects]
    foreign = [ref for ref in refs if ref in objects and ref.kind != CLAIM and _is_foreign(draft, ref)]
    if record.state == "Running" and not missing and not foreign:
        _check_claim(draft, record)
        return
    record = record.but(state="Running", round=draft.run.round, attempt=1, started_at=record.started_at or draft.time)
    if record.reason in reasons.CONTROL_REASONS and missing:  # it stands until everything is there
        draft.block(record, reasons.CONTROL_REASONS[record.reason], record.message or "")
    else:
        draft.record(record.but(reason=reasons.RUNNING, message=None))
    for ref in missing:
        _make(draft, record, ref)
    for ref in foreign:
        _wait_for_removal(draft, record, ref)


def _check_claim(draft: Draft, record: StageRecord) -> None:
    """Go on with a claim that is bound, or that may become so with its first pod; not with one that has lost its volume."""
    ref = Ref(CLAIM, naming.workspace_claim(draft.view))
    claim = draft.observed.objects[ref]
    bound = (claim.get("status") or {}).get("phase")
    leaving = bool(claim["metadata"].get("deletionTimestamp"))
    if bound == "Lost" or leaving:
        message = f"The claim {ref.name} {'is being deleted' if leaving else 'has lost its volume'}."
        draft.block(record, reasons.CLAIM_LOST, message)
        draft.look_again(draft.observed.settings.progress_seconds)
        return
    record = record.but(state="Succeeded", finished_at=draft.time, reason=reasons.SUCCEEDED, message=None)
    if bound != "Bound":
        record = record.but(reason=reasons.CLAIM_NOT_BOUND, message=f"The claim {ref.name} is not bound yet.")
    draft.record(record)


def _confirm_claim(draft: Draft, record: StageRecord) -> None:
    """A pod whose container has started has the claim mounted, so the claim is bound: no read is needed to know it."""
    pods = (pod for report in draft.observed.pods.values() for pod in report)
    if record.reason == reasons.CLAIM_NOT_BOUND and any(pod.phase == "Running" or pod.termination is not None for pod in pods):
        draft.record(record.but(reason=reasons.SUCCEEDED, message=None))


def _is_foreign(draft: Draft, ref: Ref) -> bool:
    return shared_objects.conflict(draft.view, ref, draft.observed) is not None


def _wait_for_removal(draft: Draft, record: StageRecord, ref: Ref) -> None:
    """An object of the name is not ours: one of an earlier run is about to be collected, any other is the user's to remove."""
    if wait_for_leftover(draft, record, draft.observed.objects[ref]):
        return
    draft.block(record, reasons.NAME_CONFLICT, shared_objects.conflict(draft.view, ref, draft.observed) or "")
    draft.look_again(draft.observed.settings.progress_seconds)


def _renew_entry(draft: Draft) -> None:
    """Take this release's training program where the one that the run was resolved with is gone with the release before."""
    resolved, digest = draft.get("resolved"), draft.observed.settings.entry_digest
    if (
        Ref(CONFIGMAP, naming.entry_name(resolved["entryDigest"])) not in draft.observed.objects
        and resolved["entryDigest"] != digest
    ):
        draft.fields["resolved"] = {**resolved, "entryDigest": digest}


def _make(draft: Draft, record: StageRecord, ref: Ref) -> None:
    run, settings = draft.view, draft.observed.settings
    refused = draft.observed.refused.get(ref)
    if refused is not None:
        draft.block(record, refusal(refused)[0], refused.message)
    if ref.kind != CLAIM:
        shared_objects.create(draft, ref)
    elif run.resolved["storage"].get("claimName"):
        if record.started_at != draft.time:
            message = f"The claim {ref.name}, which storage.claimName names, does not exist."
            draft.block(record, reasons.CLAIM_NOT_FOUND, message)
        draft.look_again(settings.progress_seconds)
    else:
        draft.effects.append(Create(children.claim(run), ref))
