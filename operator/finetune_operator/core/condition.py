"""Entries of ``status.conditions``, as ``k8s.io/apimachinery/pkg/api/meta`` handles them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.status import MESSAGE_LIMIT

from .paths import Json
from .run import Run


def find_condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """Return the condition of a type in the status of a run; ``None`` if it has none."""
    return next((condition for condition in status.get("conditions") or () if condition["type"] == type_), None)


def is_true(status: Mapping[str, Any], type_: str) -> bool:
    """Return whether the condition of a type is ``True``."""
    return (find_condition(status, type_) or {}).get("status") == "True"


def new_condition(run: Run, type_: str, status: str, reason: str, message: str, *, time: str) -> Json:
    """Return a condition for the current generation of the run. ``lastTransitionTime`` is ``time`` only if ``status`` changes."""
    before = find_condition(run.status, type_)
    since = before["lastTransitionTime"] if before and before["status"] == status else time
    return {
        "type": type_, "status": status, "reason": reason, "message": message[:MESSAGE_LIMIT], "lastTransitionTime": since,
        "observedGeneration": run.generation,
    }  # fmt: skip
