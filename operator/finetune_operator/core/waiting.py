"""An attempt whose child exists and has not ended: suspended, resumed, given what its pods lack, and its obstacle reported."""

from __future__ import annotations

from datetime import datetime

from finetune_operator.api import reasons
from finetune_operator.api.kinds import CONFIGMAP

from . import naming, shared_objects
from .decision import Patch
from .diagnosis import Diagnosis
from .draft import Draft
from .observation import Object, Ref, child_ref, is_held, look_seconds
from .obstacles import NO_PODS_SECONDS, child_seconds, obstacle, refusal
from .pod_report import PodReport
from .run import StageRecord

STARTING_SECONDS = 2.5
"""Between two looks at a child that has just been made: what keeps its pods from starting is told within seconds."""
LONGEST_STARTING_SECONDS = 60.0
STOP_SECONDS = 120
"""A suspended child whose pods still run after that time is deleted."""
_LEFTOVER_SECONDS = 2.0
"""Between two looks at an object of an earlier run of the same name, which is about to be collected."""


def wait(draft: Draft, record: StageRecord, child: Object, pods: tuple[PodReport, ...]) -> Diagnosis | None:
    """Follow an attempt that is under way; why it has to end, if it does."""
    held = bool(child.get("spec", {}).get("suspend"))
    if held and pods and draft.suspended_for > STOP_SECONDS:
        return Diagnosis(reasons.SHUT_DOWN, "Its pods did not stop when the run was suspended.")
    missing, conflict = _look_at_shared_objects(draft, record, child)
    if shared_objects.bundle_is_lost(draft.run, draft.observed, missing):
        return _renew_bundle(draft)
    for ref in missing:
        shared_objects.create(draft, ref)
    _suspend_or_resume(draft, record, child, hold=draft.suspended or conflict is not None)
    refused = next((draft.observed.refused[ref] for ref in missing if ref in draft.observed.refused), None)
    if conflict is not None:
        draft.block(record, reasons.NAME_CONFLICT, conflict)
        draft.look_again(draft.observed.settings.progress_seconds)
    elif refused is not None:
        draft.block(record, refusal(refused)[0], refused.message)
    elif held and not draft.suspended and not is_held(child):
        message = f"{record.child_kind} {record.child_name}: spec.suspend is true, and this operator did not set it"
        draft.block(record, reasons.CHILD_SUSPENDED, message)
    else:
        _report(draft, record, child, pods)
    return None


def wait_for_leftover(draft: Draft, record: StageRecord, item: Object) -> bool:
    """Wait if an object belongs to an earlier run of the same name. Return whether it does."""
    if not shared_objects.is_leftover(draft.run, item):
        return False
    message = f"{item['metadata']['name']} of an earlier run is being removed."
    draft.record(record.but(reason=reasons.WAITING, message=message))
    draft.look_again(_LEFTOVER_SECONDS)
    return True


def _look_at_shared_objects(draft: Draft, record: StageRecord, child: Object) -> tuple[tuple[Ref, ...], str | None]:
    """Those that the attempt's pods lack and that do not exist, and the sentence about one that is not ours."""
    observed = draft.observed
    wanted = tuple(shared_objects.wanted_by(draft.run, record, child, observed.pods.get(record.name, ()), draft.now))
    found = (shared_objects.conflict(draft.run, ref, observed) for ref in wanted if ref in observed.objects)
    return tuple(ref for ref in wanted if ref not in observed.objects), next((one for one in found if one), None)


def _renew_bundle(draft: Draft) -> Diagnosis:
    """An earlier release's training bundle is gone: the next attempt takes that of this release."""
    digest = draft.observed.settings.entry_digest
    draft.fields["resolved"] = {**draft.get("resolved"), "entryDigest": digest}
    shared_objects.create(draft, Ref(CONFIGMAP, naming.entry_name(digest)))
    return Diagnosis(reasons.CHILD_LOST, "The training bundle of the release that started the run was deleted.")


def _suspend_or_resume(draft: Draft, record: StageRecord, child: Object, *, hold: bool) -> None:
    """Only what this operator suspended is resumed: a suspension of another controller, such as a queue, is neither adopted nor undone."""
    held, ours = bool(child.get("spec", {}).get("suspend")), is_held(child)
    if hold and not held:
        annotations: dict[str, str | None] = {naming.HELD_ANNOTATION: naming.MANAGED_BY}
    elif ours and not hold:
        annotations = {naming.HELD_ANNOTATION: None}
    else:
        return
    draft.effects.append(Patch(child_ref(record), {"metadata": {"annotations": annotations}, "spec": {"suspend": hold}}))


def _report(draft: Draft, record: StageRecord, child: Object, pods: tuple[PodReport, ...]) -> None:
    """What an attempt does, or waits for."""
    complaints = draft.observed.complaints
    found = None if draft.suspended else obstacle(draft.view, record, child, pods, complaints=complaints, now=draft.now)
    if found is not None:
        draft.block(record, *found)
        draft.look_again(draft.observed.settings.progress_seconds)
    elif any(pod.phase == "Running" for pod in pods):
        draft.record(record.but(reason=reasons.RUNNING, message=None))
        draft.look_again(look_seconds(record, draft.time, draft.observed.settings))
    elif bool(child.get("spec", {}).get("suspend")):
        draft.record(record.but(reason=reasons.SUSPENDED, message=None))
    else:
        draft.record(record.but(reason=reasons.STARTING, message=None))
        draft.look_again(_starting_pause(child, draft.now))


def _starting_pause(child: Object, now: datetime) -> float:
    """Seconds to the next look at a child that has not begun: as long as it has waited already, so that many do not ask a full cluster."""
    age = child_seconds(child, now)
    pause = min(LONGEST_STARTING_SECONDS, max(STARTING_SECONDS, age))
    return pause if age >= NO_PODS_SECONDS else min(pause, max(STARTING_SECONDS, NO_PODS_SECONDS - age))
