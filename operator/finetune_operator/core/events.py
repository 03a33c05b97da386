"""Events: one for each transition, told from the difference between two statuses.

What lasts in status, the end of a stage and the end of a round, has a key: whoever tells it, the Event is the same one.
:func:`lasting` finds those again after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from finetune_operator.api import reasons
from finetune_operator.api.status import MESSAGE_LIMIT

from .conditions import failure_line, registered_name
from .decision import Event
from .run import Run, StageRecord
from .stages import GATE

_QUIET = ("workspace", "registry-check")


def events(
    before: Mapping[str, Any],
    records_before: Mapping[str, StageRecord],
    after: Mapping[str, Any],
    records: Mapping[str, StageRecord],
) -> tuple[Event, ...]:
    """What happened between two statuses, as Events of the run."""
    return (*_stage_events(records_before, after, records), *_run_events(before, after, records))


def lasting(run: Run) -> Iterator[tuple[Event, str]]:
    """Yield the Events that the status itself tells of, each with its time: ends and warnings of this round's stages, and its end."""
    for record in run.stages.values():
        if record.round == run.round and record.finished_at and record.state in ("Succeeded", "Failed"):
            event = _stage_event(record, run.status, known=True)
            if event is not None and event.posted:
                yield event, record.finished_at
            warnings = (one for one in run.status.get("warnings") or () if one["stage"] == record.name)
            yield from ((_warning(one, run.status), record.finished_at) for one in warnings)
    if run.ended:
        yield _end(run.status, run.stages), str(run.status["finishedAt"])


def _stage_events(
    before: Mapping[str, StageRecord], status: Mapping[str, Any], after: Mapping[str, StageRecord]
) -> Iterator[Event]:
    for name, record in after.items():
        old = before.get(name)
        if old is not None and (old.state, old.attempt, old.round) == (record.state, record.attempt, record.round):
            continue
        told = _stage_event(record, status, known=old is not None)
        if told is not None:
            yield told


def _stage_event(record: StageRecord, status: Mapping[str, Any], *, known: bool) -> Event | None:
    told = _told(record, known=known)
    if told is None:
        return None
    key = f"{record.name} {record.this_attempt} {record.state}" if record.ended else ""
    posted = _is_posted(told, record) and not _ends_the_run(record, status)
    return replace(told, stage=record.name, attempt=str(record.this_attempt), posted=posted, key=key)


def _is_posted(told: Event, record: StageRecord) -> bool:
    """What comes well is told at its end; of beginnings that of training, which people wait for, and those of further attempts."""
    if told.reason == "StageStarted":
        return record.name == "training" or record.attempt > 1
    return told.type == "Warning" or record.name not in _QUIET


def _ends_the_run(record: StageRecord, status: Mapping[str, Any]) -> bool:
    """Whether the Event of the run's end, which names the same stage and reason, is of the same moment: one of the two is enough."""
    culprit = (status.get("failure") or {}).get("stage") or (GATE if _rejected(status) else None)
    return record.state == "Failed" and record.name == culprit and record.finished_at == status.get("finishedAt")


def _told(record: StageRecord, *, known: bool) -> Event | None:
    about = f"{record.name}: {record.message}"[:MESSAGE_LIMIT] if record.message else record.name
    if record.state == "Running" and record.child_name:
        return Event("Normal", "StageStarted", f"{record.name}: {record.child_kind} {record.child_name}")
    if record.state == "Succeeded" and known:
        return Event("Normal", "StageSucceeded", about)
    if record.state in ("Retrying", "Failed"):
        return Event("Warning", record.reason or f"Stage{record.state}", about)
    return None


def _run_events(before: Mapping[str, Any], after: Mapping[str, Any], records: Mapping[str, StageRecord]) -> Iterator[Event]:
    if after.get("startedAt") and (not before.get("startedAt") or after.get("round") != before.get("round")):
        yield Event("Normal", "RunStarted", f"round {after.get('round', 1)}")
    yield from _obstacle_events(before, after)
    known = before.get("warnings") or ()
    for warning in after.get("warnings") or ():
        if warning not in known:
            yield _warning(warning, after)
    if after.get("finishedAt") and not before.get("finishedAt"):
        yield _end(after, records)


def _warning(warning: Mapping[str, Any], status: Mapping[str, Any]) -> Event:
    message = f"{warning['stage']}: {warning['message']}"
    return Event("Warning", "StageWarning", message, key=f"round {status.get('round', 1)} {message}")


def _end(status: Mapping[str, Any], records: Mapping[str, StageRecord]) -> Event:
    """The Event of the end of a round."""
    key = f"round {status.get('round', 1)} {status['finishedAt']}"
    failure = status.get("failure")
    if failure:
        return Event("Warning", failure["reason"], failure_line(failure, reason=False)[:MESSAGE_LIMIT], key=key)
    if _rejected(status):
        message = records[GATE].message if GATE in records else None
        return Event("Warning", reasons.GATE_REJECTED, f"{reasons.GATE_REJECTED}: {message or ''}"[:MESSAGE_LIMIT], key=key)
    registry, model = status.get("registry"), status.get("model") or {}
    return Event("Normal", "RunSucceeded", registered_name(registry) if registry else str(model.get("uri", "")), key=key)


def _rejected(status: Mapping[str, Any]) -> bool:
    return (status.get("gate") or {}).get("passed") is False


def _obstacle_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    """What the run waits for, once for each reason."""
    old, new = _stalled(before), _stalled(after)
    if new is not None and not after.get("finishedAt") and (old is None or old["reason"] != new["reason"]):
        yield Event("Warning", new["reason"], new["message"])


def _stalled(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = (condition for condition in status.get("conditions") or () if condition["type"] == "Stalled")
    return next((condition for condition in found if condition["status"] == "True"), None)
