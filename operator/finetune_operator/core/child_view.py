"""Children reduced to what decisions read of them, and how soon a change of a pod must be acted on.

In its life a child changes about a dozen times. Decisions depend on five of these changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .observation import ChildState, child_state
from .paths import Json
from .pod_report import STARTS, PodReport
from .waiting import STARTING_SECONDS

_POD_COUNTS = frozenset({
    "active", "ready", "succeeded", "failed", "terminating", "uncountedTerminatedPods", "startTime", "completionTime", "jobsStatus",
})  # fmt: skip
"""Status fields of a Job or TrainJob that count its pods. The pods themselves show the same earlier and in more detail."""
_IGNORED_METADATA = frozenset({"resourceVersion", "managedFields", "generation"})

RUNNING_SECONDS = 0.25
"""Delay after a pod has started. No step waits for it, and one pass then often covers the end of a short pod as well."""
TOGETHER_SECONDS = 0.1
"""Delay after a pod has succeeded while others run: attempts that start together often end together, and one write covers both."""


def child_view(child: Mapping[str, Any]) -> Json:
    """Return the metadata, ``spec.suspend`` and status of a Job or TrainJob as far as decisions read them.

    Two states with the same view lead to the same decision. Only conditions that are True remain.
    """
    metadata = {name: value for name, value in child["metadata"].items() if name not in _IGNORED_METADATA}
    status = {name: value for name, value in (child.get("status") or {}).items() if name not in _POD_COUNTS}
    status["conditions"] = [condition for condition in status.get("conditions") or () if condition.get("status") == "True"]
    return {"metadata": metadata, "spec": {"suspend": bool((child.get("spec") or {}).get("suspend"))}, "status": status}


def is_under_way(view: Json) -> bool:
    """Return whether a child with this view is neither ended nor suspended."""
    return child_state(view) is ChildState.ACTIVE and not view["spec"]["suspend"]


def pod_requeue_after(before: PodReport | None, pod: PodReport) -> float | None:
    """Return the seconds after which a changed pod must be acted on; ``None`` if the change affects no decision.

    Every pod is created, bound to a node and started. A pass checks within :data:`STARTING_SECONDS` that nothing prevents that.

    Args:
        before: the pod before the change; ``None`` for a pod that was not known.
        pod: the pod after the change.
    """
    old = _without_normal_start(before) if before else PodReport(pod.name, pod.rank, created_at=pod.created_at)
    new = _without_normal_start(pod)
    if new == old:
        return STARTING_SECONDS if before is None else None
    if replace(new, placed=old.placed) == old:
        return STARTING_SECONDS
    started = pod.phase == "Running" and replace(new, placed=old.placed, phase=old.phase) == old
    return RUNNING_SECONDS if started else 0.0


def _without_normal_start(pod: PodReport) -> PodReport:
    """Return the pod without the reasons for which the containers of every pod wait at first."""
    return replace(pod, waiting="", waiting_message="") if pod.waiting in STARTS else pod
