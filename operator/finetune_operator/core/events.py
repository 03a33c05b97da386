"""Events: one for each transition, told from the difference between two statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_operator.api import reasons

from .decision import Event
from .run import StageRecord

_LIMIT = 1024


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
        about = f"{name}: {record.message}"[:_LIMIT] if record.message else name
        if record.state == "Running" and record.child_name:
            yield Event("Normal", "StageStarted", f"{name}: {record.child_kind} {record.child_name}")
        elif record.state == "Succeeded" and old is not None:
            yield Event("Normal", "StageSucceeded", about)
        elif record.state == "Retrying":
            yield Event("Warning", record.reason or "Retrying", about)
        elif record.state == "Failed":
            yield Event("Warning", record.reason or "StageFailed", about)


def _run_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    if after.get("startedAt") and (not before.get("startedAt") or after.get("round") != before.get("round")):
        yield Event("Normal", "RunStarted", f"round {after.get('round', 1)}")
    if after.get("finishedAt") and not before.get("finishedAt"):
        failure = after.get("failure")
        if failure:
            yield Event("Warning", failure["reason"], str(failure.get("message") or "")[:_LIMIT])
        elif (after.get("gate") or {}).get("passed") is False:
            yield Event("Warning", reasons.GATE_REJECTED, str((after.get("summary") or {}).get("message", "")))
        else:
            yield Event("Normal", "RunSucceeded", str((after.get("summary") or {}).get("model", "")))
