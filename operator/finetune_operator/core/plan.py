"""The whole behaviour of the operator: ``plan(run, observed, now)`` says what is to be done, and nothing else does.

Pure and total: no I/O, no clock, no randomness, no logging; every state and every observation has an answer. It is a chain of
policies, after cert-manager's: the first that has something to say decides.

A round of a run goes through these states::

    not started --resolve--> started --stages--> ended          (one status write tells each step, effects follow it)
         |                      |                  |
         +--refused             +--a stage failed: what runs is stopped, then ended
         (edit spec: again)                        +--rerun.id changed: a new round
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from finetune_contract import CONTRACT_VERSION
from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, SERVICE_ACCOUNT

from . import attempt, naming, preflight
from .admission import admit
from .conditions import conditions, phase, summary
from .decision import Create, Decision, Delete
from .draft import Draft
from .events import events
from .manifests import children
from .observation import Observed, Ref, cleanup_due, workspace_refs
from .obstacles import refusal
from .paths import Json
from .progress import watch_progress
from .resolve import Refusal, resolve
from .run import Run, StageRecord
from .settings import Settings
from .stages import GATE, ORDER, PROGRAMS, RERUN_FROM, STAGE, STAGES, WORKSPACE
from .stages.dataset import DatasetStage
from .times import duration, moment, seconds_between, stamp
from .trim import size_of, trim


def plan(run: Run, observed: Observed, now: datetime) -> Decision:
    """The next status and effects for ``run``, given what was observed at ``now``."""
    for policy in _POLICIES:
        decision = policy(run, observed, now)
        if decision is not None:
            return decision
    return advance(run, observed, now)


def leave_deleted(run: Run, _observed: Observed, _now: datetime) -> Decision | None:
    """A run that is being deleted takes its children with it; nothing is left to decide."""
    return Decision(dict(run.status)) if run.deleting else None


def open_round(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """A new ``rerun.id`` on a run that has ended opens the next round."""
    rerun = run.spec.get("rerun")
    if not rerun or not run.ended or not run.started or rerun["id"] == run.status.get("rerunId"):
        return None
    resolved = _resolve(run, observed)
    if isinstance(resolved, Refusal):
        return _refuse(run, observed, now, resolved, rerun_id=rerun["id"])
    again = RERUN_FROM[rerun["from"]]
    number = run.round + 1
    draft = Draft(_with_status(run, {**_kept(run.status, again), "resolved": resolved, "round": number}), observed, now)
    for name in ORDER:
        old = run.stages.get(name)
        kept = old is not None and old.state == "Succeeded" and name not in again and name != WORKSPACE
        draft.record(old if kept and old is not None else StageRecord(name, round=number))
    _begin(draft, rerun_id=rerun["id"])
    return _decide(draft)


def _kept(status: Mapping[str, Any], again: Sequence[str]) -> Json:
    """What a new round says from its beginning: nothing that a stage told which is done again, or may be left out this time."""
    metrics = {group: values for group, values in (status.get("metrics") or {}).items() if group not in again}
    warnings = [warning for warning in status.get("warnings") or () if warning["stage"] not in again]
    kept = {
        "metrics": metrics or None,
        "warnings": warnings or None,
        "rows": _rows_kept(status.get("rows"), again),
        "registry": None,
    }
    return {**status, **kept}


def _rows_kept(rows: Json | None, again: Sequence[str]) -> Json | None:
    """What stages that are not done again counted."""
    if rows is None or "dataset" in again:
        return None
    return {key: rows[key] for key in DatasetStage.COUNTS if key in rows} if "tokenization" in again else rows


def keep_ended(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """Terminal is terminal. What remains is to remove finished children when their time has come."""
    if not run.ended:
        return None
    if not run.started:
        changed = run.generation != run.status.get("observedGeneration")
        return None if changed else Decision(dict(run.status))
    status = _seen(run)
    if status.get("cleanedAt"):
        return Decision(status)
    if not cleanup_due(run, stamp(now)):
        kept = duration(run.mutable("cleanup")["ttlAfterFinished"])
        left = (moment(status["finishedAt"]) + kept - now).total_seconds()
        return Decision(status, again_in=max(1.0, left))
    if observed.leftovers:
        return Decision(status, tuple(Delete(ref) for ref in observed.leftovers), again_in=5.0)
    return Decision({**status, "cleanedAt": stamp(now)})


def _seen(run: Run) -> Json:
    """The status of a run that has ended, under its present generation: an edit of what stays mutable is seen, and changes nothing."""
    found = {**run.status, "observedGeneration": run.generation}
    found["conditions"] = [{**one, "observedGeneration": run.generation} for one in run.status.get("conditions") or ()]
    return found


def start(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """Resolve the run and freeze what it was resolved to; or refuse it, and look again when it was edited."""
    if run.started:
        return None
    if run.spec.get("suspend"):
        return _decide(Draft(_with_status(run, {}), observed, now))
    resolved = _resolve(run, observed)
    if isinstance(resolved, Refusal):
        return _refuse(run, observed, now, resolved)
    draft = Draft(_with_status(run, {"resolved": resolved, "round": 1}), observed, now)
    for name in ORDER:
        draft.record(StageRecord(name))
    rerun = run.spec.get("rerun") or {}
    _begin(draft, rerun_id=rerun.get("id"))
    return _decide(draft)


def hold_unknown_contract(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """A run that another release started under a contract that this one does not know is held, never rewritten."""
    version = (run.status.get("resolved") or {}).get("contractVersion")
    if run.ended or version == CONTRACT_VERSION:
        return None
    draft = Draft(run, observed, now)
    message = f"The run was started under contract version {version}; this release knows {CONTRACT_VERSION}."
    draft.obstacles.append((reasons.CONTRACT_UNKNOWN, message))
    shown = {**(run.status.get("summary") or {}), "message": f"{reasons.CONTRACT_UNKNOWN}: {message}"[:128]}
    status = {**run.status, "conditions": conditions(draft), "summary": shown, "observedGeneration": run.generation}
    return Decision(status, events=events(run.status, run.stages, status, run.stages))


def hold_without_right(run: Run, message: str, now: datetime) -> Decision:
    """A run of which nothing can be observed, because the operator may not read what it needs, is held and says so."""
    if run.ended or run.deleting:
        return Decision(dict(run.status))
    draft = Draft(run, _NOTHING, now)
    draft.obstacles.append((reasons.FORBIDDEN, message))
    found = {
        "conditions": conditions(draft),
        "phase": phase(draft),
        "summary": summary(draft),
        "observedGeneration": run.generation,
    }
    return Decision({**run.status, **found}, events=events(run.status, run.stages, found, draft.records))


_NOTHING = Observed(Settings("cluster", "", {}, ""))


def advance(run: Run, observed: Observed, now: datetime) -> Decision:
    """Bring every stage as far as what was observed allows."""
    draft = Draft(run, observed, now)
    if draft.get("failure"):
        _stop(draft)
    else:
        _advance(draft)
    return _decide(draft)


_POLICIES: tuple[Callable[[Run, Observed, datetime], Decision | None], ...] = (
    leave_deleted, open_round, keep_ended, start, hold_unknown_contract,
)  # fmt: skip


def _resolve(run: Run, observed: Observed) -> Json | Refusal:
    """Return what the run is resolved to, or why it cannot start: neither the fields nor the pods that they shape may be invalid."""
    resolved = resolve(run.spec, observed.settings)
    if isinstance(resolved, Refusal):
        return resolved
    claim = naming.workspace_claim(_with_status(run, {"resolved": resolved}))
    resolved = {**resolved, "volumeUri": str(resolved["volumeUri"]).replace("{claim}", claim)}
    return preflight.rejection(resolved, run, observed.invalid) or resolved


def _with_status(run: Run, status: Json) -> Run:
    return replace(run, status=status)


def _begin(draft: Draft, rerun_id: str | None) -> None:
    draft.fields.update({
        "startedAt": draft.run.status.get("startedAt") or draft.time, "finishedAt": None, "failure": None, "progress": None,
        "cleanedAt": None, "rerunId": rerun_id, "resolved": draft.run.status["resolved"], "round": draft.run.status["round"],
        "gate": draft.get("gate") if draft.records[GATE].ended else None,
    })  # fmt: skip
    for stage in STAGES:
        reason = stage.skipped(draft.run)
        if reason:
            draft.record(draft.records[stage.name].but(state="Skipped", reason=reason, finished_at=draft.time))
    _advance(draft)


def _refuse(run: Run, observed: Observed, now: datetime, refusal: Refusal, rerun_id: str | None = None) -> Decision:
    """End the run before it starts. An edit of ``spec`` is looked at again."""
    draft = Draft(run if run.started else _with_status(run, {}), observed, now)
    failure = {"reason": refusal.reason.name, "message": refusal.message[:1024], "hint": refusal.reason.remedy}
    draft.fields.update({"failure": failure, "finishedAt": draft.time})
    if rerun_id is not None:
        draft.fields["rerunId"] = rerun_id
    return _decide(draft)


def _advance(draft: Draft) -> None:
    _prepare_workspace(draft)
    for name in STAGE:
        if name == GATE:
            admit(draft)
        else:
            attempt.step(draft, PROGRAMS[name])
    if draft.get("failure"):
        _stop(draft)
        return
    watch_progress(draft)
    _end_if_over(draft)


def _stop(draft: Draft) -> None:
    """End what runs. What this very pass was about to make is not made."""
    draft.effects = [effect for effect in draft.effects if not isinstance(effect, Create)]
    for record in tuple(draft.records.values()):
        attempt.stop(draft, record)
    _end_if_over(draft)


def _end_if_over(draft: Draft) -> None:
    """End the run once every stage has ended and no child of it is left to be removed."""
    if not all(record.ended and not record.releasing for record in draft.records.values()):
        return
    draft.fields.update({"finishedAt": draft.time, "progress": None, "usage": _usage(draft)})


def _usage(draft: Draft) -> Json:
    training = draft.run.resolved["training"]
    record = draft.records["training"]
    trained = seconds_between(record.started_at, record.finished_at) or 0.0
    started = draft.get("startedAt")
    return {
        "gpuSeconds": trained * training["gpusPerWorker"] * training["workers"],
        "wallSeconds": seconds_between(started, draft.time) or 0.0,
    }


def _prepare_workspace(draft: Draft) -> None:
    """Make the claim and the ConfigMaps, and go on once they exist. A claim need not be bound: its first pod binds it."""
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
    if record.state == "Running" and not missing:
        _check_claim(draft, record)
        return
    record = record.but(state="Running", round=draft.run.round, attempt=1, started_at=record.started_at or draft.time)
    if record.reason in reasons.CONTROL_REASONS:  # it stands until everything is there
        draft.block(record, reasons.CONTROL_REASONS[record.reason], record.message or "")
    else:
        draft.record(record.but(reason=reasons.RUNNING, message=None))
    for ref in missing:
        _make(draft, record, ref)


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
    if ref.kind == CLAIM and run.resolved["storage"].get("claimName"):
        if record.started_at != draft.time:
            message = f"The claim {ref.name}, which storage.claimName names, does not exist."
            draft.block(record, reasons.CLAIM_NOT_FOUND, message)
        draft.look_again(settings.progress_seconds)
    elif ref.kind == SERVICE_ACCOUNT:
        draft.effects.append(Create(children.stage_account(run.namespace), ref))
    elif ref.kind == CLAIM:
        draft.effects.append(Create(children.claim(run), ref))
    elif ref.name == naming.entry_name(settings.entry_digest):
        draft.effects.append(Create(children.entry_configmap(run.namespace, settings.entry_digest, settings.entry_archive), ref))
    else:
        inputs = {stage.name: stage.inputs(run) for stage in PROGRAMS.values() if not stage.skipped(run)}
        draft.effects.append(Create(children.inputs_configmap(run, inputs), ref))


def _decide(draft: Draft) -> Decision:
    """The decision that a draft has come to."""
    run = draft.run
    draft.fields["stages"] = [record.as_status() for record in draft.records.values()] or None
    status = {**run.status, **draft.fields}
    status.update({
        "observedGeneration": run.generation, "phase": phase(draft), "conditions": conditions(draft), "summary": summary(draft),
    })  # fmt: skip
    status = trim({key: value for key, value in status.items() if value is not None}, size_of(run.spec))
    told = events(run.status, run.stages, status, draft.records)
    return Decision(status, tuple(draft.effects), told, draft.again_in)
