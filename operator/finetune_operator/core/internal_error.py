"""Runs that the operator cannot advance because of an error in its own program.

The status may be what causes the error, so it is changed as little as possible and not interpreted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.api.reasons import INTERNAL_ERROR, RUN_FINISHED

from .condition import new_condition
from .decision import Decision, Event
from .paths import Json
from .run import Run
from .times import stamp

_SUMMARY_LIMIT = 128


def hold_internal_error(run: Run, exception: str, now: datetime) -> Decision:
    """Return the decision about a run for which ``plan`` or the reads before it raised an exception: condition ``Stalled``.

    The next pass that works replaces the condition.

    Args:
        run: the run.
        exception: the type of the exception. Its message may contain data of the user, and is only logged.
        now: the time of the pass.
    """
    if run.deleting:
        return Decision(dict(run.status))
    message = f"The operator raised {exception} in its own program. {INTERNAL_ERROR.remedy}"
    before = run.status.get("conditions") or ()
    lines = {"Reconciling": "False", "Stalled": "True"}  # in this order: kstatus takes the first of the two that is True
    held = {
        type_: new_condition(run, type_, status, INTERNAL_ERROR.name, message, time=stamp(now)) for type_, status in lines.items()
    }
    kept = [held.pop(condition["type"], condition) for condition in before]
    status = {**run.status, "conditions": [*kept, *held.values()]}
    if not run.ended:  # an ended run keeps its results, and the generation that they belong to
        summary = {**(run.status.get("summary") or {}), "message": f"{INTERNAL_ERROR}: {message}"[:_SUMMARY_LIMIT]}
        status |= {"phase": run.status.get("phase") or "Pending", "summary": summary, "observedGeneration": run.generation}
    shown = any(map(_is_internal_error, before))
    return Decision(status, events=() if shown else (Event("Warning", INTERNAL_ERROR.name, message),))


def without_internal_error(run: Run, conditions: Iterable[Json]) -> list[Json]:
    """Return the conditions of an ended run as they were before an internal error."""
    conditions = list(conditions)
    succeeded: Json = next((condition for condition in conditions if condition["type"] == "Succeeded"), {})
    return [_after_end(run, condition, succeeded) if _is_internal_error(condition) else condition for condition in conditions]


def _is_internal_error(condition: Mapping[str, Any]) -> bool:
    return condition.get("reason") == INTERNAL_ERROR.name


def _after_end(run: Run, condition: Json, succeeded: Json) -> Json:
    """Return ``Stalled`` or ``Reconciling`` of an ended run: a run that has not succeeded is stalled for the reason of its end."""
    if condition["type"] == "Stalled" and succeeded.get("status") == "False":
        return {**condition, "reason": succeeded["reason"], "message": succeeded["message"]}
    since = condition["lastTransitionTime"] if condition["status"] == "False" else run.status["finishedAt"]
    return {**condition, "status": "False", "reason": RUN_FINISHED, "message": "", "lastTransitionTime": since}
