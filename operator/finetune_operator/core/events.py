"""Events: one for each transition, from the difference between two statuses.

The end of a stage and the end of a round stay in status, so their Events have a key and are posted once. :func:`lasting_events` finds
them again after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from finetune_operator.api.status import MESSAGE_LIMIT

from . import stages
from .condition import find_condition, is_true
from .decision import Event
from .run import Run, StageStatus
from .summary import failure_line, registered_name


def events(
    before: Mapping[str, Any],
    stages_before: Mapping[str, StageStatus],
    after: Mapping[str, Any],
    stage_statuses: Mapping[str, StageStatus],
) -> tuple[Event, ...]:
    """Return the Events of the transitions between two statuses."""
    return (*_stage_events(stages_before, after, stage_statuses), *_run_events(before, after, stage_statuses))


def lasting_events(run: Run) -> Iterator[tuple[Event, str]]:
    """Yield the Events that follow from the status alone, each with its time: ends and warnings of stages, and the end of the run."""
    for stage_status in run.stages.values():
        if stage_status.round == run.round and stage_status.finished_at and stage_status.state in ("Succeeded", "Failed"):
            event = _stage_event(stage_status, run.status, run.stages, known=True)
            if event is not None and event.posted:
                yield event, stage_status.finished_at
            warnings = (one for one in run.status.get("warnings") or () if one["stage"] == stage_status.name)
            yield from ((_warning(one, run.status), stage_status.finished_at) for one in warnings)
    if run.ended:
        yield _end(run.status, run.stages), str(run.status["finishedAt"])


def _stage_events(
    before: Mapping[str, StageStatus], status: Mapping[str, Any], after: Mapping[str, StageStatus]
) -> Iterator[Event]:
    for name, stage_status in after.items():
        old = before.get(name)
        if old is not None and (old.state, old.attempt, old.round) == (
            stage_status.state,
            stage_status.attempt,
            stage_status.round,
        ):
            continue
        event = _stage_event(stage_status, status, after, known=old is not None)
        if event is not None:
            yield event


def _stage_event(
    stage_status: StageStatus, status: Mapping[str, Any], stage_statuses: Mapping[str, StageStatus], *, known: bool
) -> Event | None:
    event = _event_of(stage_status, known=known)
    if event is None:
        return None
    key = f"{stage_status.name} {stage_status.this_attempt} {stage_status.state}" if stage_status.ended else ""
    posted = _is_posted(event, stage_status) and not _ends_the_run(stage_status, status, stage_statuses)
    return replace(event, stage=stage_status.name, attempt=str(stage_status.this_attempt), posted=posted, key=key)


def _is_posted(event: Event, stage_status: StageStatus) -> bool:
    """Return whether the Event is posted. Of starts, only those of announced stages and of further attempts are."""
    definition = stages.GRAPH.definition(stage_status.name)
    if event.reason == "StageStarted":
        return definition.announced or stage_status.attempt > 1
    return event.type == "Warning" or not definition.quiet


def _ends_the_run(stage_status: StageStatus, status: Mapping[str, Any], stage_statuses: Mapping[str, StageStatus]) -> bool:
    """Return whether the stage ends the run: the Event of the run's end has the same stage and reason, so one of them is enough."""
    if stage_status.state != "Failed" or stage_status.finished_at != status.get("finishedAt"):
        return False
    failure = status.get("failure")
    return stage_status.name == failure.get("stage") if failure else stage_status is stages.GRAPH.model_rejection(stage_statuses)


def _event_of(stage_status: StageStatus, *, known: bool) -> Event | None:
    about = f"{stage_status.name}: {stage_status.message}"[:MESSAGE_LIMIT] if stage_status.message else stage_status.name
    if stage_status.state == "Running" and stage_status.child_name:
        return Event("Normal", "StageStarted", f"{stage_status.name}: {stage_status.child_kind} {stage_status.child_name}")
    if stage_status.state == "Running" and stages.GRAPH.definition(stage_status.name).announced:
        return Event("Normal", "StageStarted", about)
    if stage_status.state == "Succeeded" and known:
        return Event("Normal", "StageSucceeded", about)
    if stage_status.state in ("Retrying", "Failed"):
        return Event("Warning", stage_status.reason or f"Stage{stage_status.state}", about)
    return None


def _run_events(
    before: Mapping[str, Any], after: Mapping[str, Any], stage_statuses: Mapping[str, StageStatus]
) -> Iterator[Event]:
    if after.get("startedAt") and (not before.get("startedAt") or after.get("round") != before.get("round")):
        yield Event("Normal", "RunStarted", f"round {after.get('round', 1)}")
    yield from _blocker_events(before, after)
    known = before.get("warnings") or ()
    for warning in after.get("warnings") or ():
        if warning not in known:
            yield _warning(warning, after)
    if after.get("finishedAt") and not before.get("finishedAt"):
        yield _end(after, stage_statuses)


def _warning(warning: Mapping[str, Any], status: Mapping[str, Any]) -> Event:
    message = f"{warning['stage']}: {warning['message']}"
    return Event("Warning", "StageWarning", message, key=f"round {status.get('round', 1)} {message}")


def _end(status: Mapping[str, Any], stage_statuses: Mapping[str, StageStatus]) -> Event:
    """Return the Event of the end of a round."""
    key = f"round {status.get('round', 1)} {status['finishedAt']}"
    failure = status.get("failure")
    if failure:
        return Event("Warning", failure["reason"], failure_line(failure, reason=False)[:MESSAGE_LIMIT], key=key)
    rejection = stages.GRAPH.model_rejection(stage_statuses)
    if rejection is not None:
        reason = str(rejection.reason)
        return Event("Warning", reason, f"{reason}: {rejection.message or ''}"[:MESSAGE_LIMIT], key=key)
    registry, model = status.get("registry"), status.get("model") or {}
    return Event("Normal", "RunSucceeded", registered_name(registry) if registry else str(model.get("uri", "")), key=key)


def _blocker_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    """Yield an Event of what blocks the run, once for each reason."""
    old, new = _stalled(before), _stalled(after)
    if new is not None and not after.get("finishedAt") and (old is None or old["reason"] != new["reason"]):
        yield Event("Warning", new["reason"], new["message"])


def _stalled(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return find_condition(status, "Stalled") if is_true(status, "Stalled") else None
