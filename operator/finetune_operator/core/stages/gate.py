"""Stage *gate*: whether the model is good enough to be registered. It has no program: the scores are in status."""

from __future__ import annotations

from finetune_operator.api import reasons
from finetune_operator.core.run import Run

from .base import Stage

GATE = "gate"


class GateStage(Stage):
    """Compare the scores with the requirements."""

    name = GATE
    condition = "GatePassed"
    depends_on = ("evaluation", "baseline")

    def skipped(self, run: Run) -> str | None:
        return None if run.resolved.gate.requirements else reasons.GATE_NOT_ASKED

    def allow_failure(self, run: Run) -> bool:
        return run.resolved.gate.on_rejected == "RegisterAsRejected"
