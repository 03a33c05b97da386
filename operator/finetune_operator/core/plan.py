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
from finetune_operator.api.status import MESSAGE_LIMIT

from . import attempt, naming, preflight
from .admission import admit
from .conditions import conditions, phase, summary
from .decision import Create, Decision, Delete, Event
from .draft import Draft
from .events import events
from .observation import Observed
from .paths import Json
from .preparation import prepare_workspace
from .progress import watch_progress
from .resolve import Refusal, resolve
from .run import Run, StageRecord
from .settings import Settings
from .stages import GATE, ORDER, PROGRAMS, RERUN_FROM, STAGE, STAGES, WORKSPACE
from .stages.dataset import DatasetStage
from .terminal import cleanup_in, observed_status, pending_rerun, reject_rerun
from .times import seconds_between, stamp
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
    rerun = pending_rerun(run)
    if rerun is None:
        return None
    resolved = _resolve(run, observed)
    if isinstance(resolved, Refusal):
        message = f"rerun {rerun['id']}: it is not started and the run keeps its results: {resolved.message}"
        rejected = Event("Warning", resolved.reason.name, message[:MESSAGE_LIMIT])
        return Decision(reject_rerun(run, resolved.reason.name, message, now), events=(rejected,))
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
    status = observed_status(run)
    left = cleanup_in(run, now)
    if left is None:
        return Decision(status)
    if left > 0:
        return Decision(status, again_in=max(1.0, left))
    if observed.leftovers:
        return Decision(status, tuple(Delete(ref) for ref in observed.leftovers), again_in=5.0)
    return Decision({**status, "cleanedAt": stamp(now)})


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


def _refuse(run: Run, observed: Observed, now: datetime, refusal: Refusal) -> Decision:
    """End the run before it starts. An edit of ``spec`` is looked at again."""
    draft = Draft(_with_status(run, {}), observed, now)
    failure = {"reason": refusal.reason.name, "message": refusal.message[:MESSAGE_LIMIT], "hint": refusal.reason.remedy}
    draft.fields.update({"failure": failure, "finishedAt": draft.time})
    return _decide(draft)


def _advance(draft: Draft) -> None:
    prepare_workspace(draft)
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
