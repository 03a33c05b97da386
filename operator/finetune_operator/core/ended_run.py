"""Ended runs: the effect of edits on their status, and how long they can stay idle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .condition import find_condition, new_condition
from .internal_error import without_internal_error
from .paths import Json
from .run import Run
from .times import duration, moment, stamp

RERUN_REJECTED = "RerunRejected"
"""Condition of an ended run whose ``spec.rerun`` cannot start. It is absent otherwise."""


def pending_rerun(run: Run) -> Mapping[str, Any] | None:
    """Return ``spec.rerun`` of an ended run, ``None`` if it was done or rejected already."""
    rerun: Mapping[str, Any] | None = run.spec.get("rerun")
    if not rerun or not run.ended or not run.started or rerun["id"] == run.status.get("rerunId"):
        return None
    return None if rejected_rerun(run) else rerun


def rejected_rerun(run: Run) -> Mapping[str, Any] | None:
    """Return the condition of the rejection of the present ``spec.rerun``, ``None`` if it is not rejected."""
    condition = find_condition(run.status, RERUN_REJECTED)
    return condition if condition and condition.get("observedGeneration") == run.generation else None


def reject_rerun(run: Run, reason: str, message: str, now: datetime) -> Json:
    """Return the status of an ended run whose rerun is rejected: only the condition is added."""
    status = observed_status(run)
    status["conditions"].append(new_condition(run, RERUN_REJECTED, "True", reason, message, time=stamp(now)))
    return status


def observed_status(run: Run) -> Json:
    """Return the status of an ended run for its current generation.

    An edit changes nothing else. The rejection of an earlier rerun and an earlier internal error are removed.
    """
    kept = (
        condition
        for condition in run.status.get("conditions") or ()
        if condition["type"] != RERUN_REJECTED or condition.get("observedGeneration") == run.generation
    )
    return {
        **run.status, "observedGeneration": run.generation,
        "conditions": without_internal_error(run, ({**condition, "observedGeneration": run.generation} for condition in kept)),
    }  # fmt: skip


def cleanup_in(run: Run, now: datetime) -> float | None:
    """Return the seconds until the finished children of an ended run are removed, ``None`` if there is nothing to remove."""
    if not run.ended or not run.started or run.status.get("cleanedAt"):
        return None
    kept = duration(run.cleanup.ttl_after_finished)
    return max(0.0, (moment(run.status["finishedAt"]) + kept - now).total_seconds())


def idle_seconds(run: Run, now: datetime) -> float:
    """Return the seconds in which no pass can change the run: 0 while it is in progress, infinity until its next edit.

    The result depends on the run alone, not on the cluster or the settings.
    """
    if run.deleting:
        return math.inf
    if not run.ended or pending_rerun(run) or run.status != observed_status(run):
        return 0.0
    left = cleanup_in(run, now)
    return math.inf if left is None else left
