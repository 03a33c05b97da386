"""The run and the attempt that an object belongs to, by its labels."""

from __future__ import annotations

from finetune_operator.api.kinds import FINETUNERUN, Kind
from finetune_operator.core.naming import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL

from .cluster import Object, RunKey

AttemptKey = tuple[str, str]
"""Stage and attempt, as their labels name them."""


def attempt_of(item: Object) -> AttemptKey:
    """Return the attempt that an object belongs to; empty strings without labels."""
    labels = item["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL, ""), labels.get(ATTEMPT_LABEL, "")


def run_of(kind: Kind, item: Object) -> RunKey | None:
    """Return the run that an object is, or belongs to by its label; ``None`` if there is none."""
    metadata = item["metadata"]
    name = metadata["name"] if kind == FINETUNERUN else (metadata.get("labels") or {}).get(RUN_LABEL)
    return (metadata.get("namespace", "default"), name) if name else None
