"""The status that kstatus computes for a custom resource, by the rules of ``pkg/kstatus/status`` of kubernetes-sigs/cli-utils.

Ported from ``Compute``, ``checkGenericProperties``, ``checkGeneration`` and ``checkReadyCondition``: the same order, the same defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Status = Literal["InProgress", "Current", "Failed", "Terminating"]


def kstatus(document: Mapping[str, Any]) -> Status:
    """Return the kstatus of an object as the API server serves it."""
    metadata, status = document["metadata"], document.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    generation, observed = metadata.get("generation"), status.get("observedGeneration")
    if generation is not None and observed is not None and observed != generation:
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if (condition["type"], condition["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"
