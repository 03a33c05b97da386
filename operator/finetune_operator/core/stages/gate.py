"""Stage *gate*: whether the model is good enough to be registered. It has no program: scores are in status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_operator.api import reasons
from finetune_operator.core.run import Run

from .base import Stage, section

GATE = "gate"


class GateStage(Stage):
    """Judge the scores."""

    name = GATE
    condition = "GatePassed"
    depends_on = ("evaluation", "baseline")

    def skipped(self, run: Run) -> str | None:
        return None if requirements(run) else reasons.GATE_NOT_ASKED

    def allow_failure(self, run: Run) -> bool:
        return section(run, "gate").get("onRejected") == "RegisterAsRejected"


def requirements(run: Run) -> Sequence[Mapping[str, Any]]:
    """What the gate requires; nothing where there is none."""
    found: Sequence[Mapping[str, Any]] = section(run, "gate").get("requirements") or ()
    return found
