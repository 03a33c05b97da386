"""Events: one for each transition, told from the difference between two statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from finetune_operator.api import reasons

from .decision import Event
from .run import StageRecord

_LIMIT = 1024
_QUIET = ("workspace", "registry-check")


def events(
    before: Mapping[str, Any],
    records_before: Mapping[str, StageRecord],
    after: Mapping[str, Any],
    records: Mapping[str, StageRecord],
) -> tuple[Event, ...]:
    """What happened between two statuses, as Events of the run."""
    return (*_stage_events(records_before, records), *_run_events(before, after))


def _stage_events(before: Mapping[str, StageRecord], after: Mapping[str, StageRecord]) -> Iterator[Event]:
    for name, record in after.items():
        old = before.get(name)
        if old is not None and (old.state, old.attempt, old.round) == (record.state, record.attempt, record.round):
            continue
        told = _told(record, known=old is not None)
        if told is not None:
            yield replace(told, stage=name, attempt=str(record.this_attempt), posted=_is_posted(told, record))


def _is_posted(told: Event, record: StageRecord) -> bool:
    """What comes well is told at its end; of beginnings that of training, which people wait for, and those of further attempts."""
    if told.reason == "StageStarted":
        return record.name == "training" or record.attempt > 1
    return told.type == "Warning" or record.name not in _QUIET


def _told(record: StageRecord, *, known: bool) -> Event | None:
    about = f"{record.name}: {record.message}"[:_LIMIT] if record.message else record.name
    if record.state == "Running" and record.child_name:
        return Event("Normal", "StageStarted", f"{record.name}: {record.child_kind} {record.child_name}")
    if record.state == "Succeeded" and known:
        return Event("Normal", "StageSucceeded", about)
    if record.state in ("Retrying", "Failed"):
        return Event("Warning", record.reason or f"Stage{record.state}", about)
    return None


def _run_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    if after.get("startedAt") and (not before.get("startedAt") or after.get("round") != before.get("round")):
        yield Event("Normal", "RunStarted", f"round {after.get('round', 1)}")
    yield from _obstacle_events(before, after)
    known = before.get("warnings") or ()
    for warning in after.get("warnings") or ():
        if warning not in known:
            yield Event("Warning", "StageWarning", f"{warning['stage']}: {warning['message']}")
    if after.get("finishedAt") and not before.get("finishedAt"):
        failure = after.get("failure")
        if failure:
            yield Event("Warning", failure["reason"], str(failure.get("message") or "")[:_LIMIT])
        elif (after.get("gate") or {}).get("passed") is False:
            yield Event("Warning", reasons.GATE_REJECTED, str((after.get("summary") or {}).get("message", "")))
        else:
            yield Event("Normal", "RunSucceeded", str((after.get("summary") or {}).get("model", "")))


def _obstacle_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    """What the run waits for, once for each reason."""
    old, new = _stalled(before), _stalled(after)
    if new is not None and not after.get("finishedAt") and (old is None or old["reason"] != new["reason"]):
        yield Event("Warning", new["reason"], new["message"])


def _stalled(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = (condition for condition in status.get("conditions") or () if condition["type"] == "Stalled")
    return next((condition for condition in found if condition["status"] == "True"), None)
