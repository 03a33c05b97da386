"""Stage *gate*: whether the model is good enough to be registered. It has no program: the scores are in status."""

from __future__ import annotations

from finetune_operator.api import reasons, stages
from finetune_operator.core.gate import Inconclusive, Scores, check_requirements
from finetune_operator.core.run import Run

from .base import OperatorStage, Outcome


class GateStage(OperatorStage):
    """Compare the scores with the requirements."""

    definition = stages.GATE

    def skipped(self, run: Run) -> str | None:
        return None if run.resolved.gate.requirements else reasons.GATE_NOT_REQUESTED

    def allow_failure(self, run: Run) -> bool:
        return run.resolved.gate.on_rejected == "RegisterAsRejected"

    def evaluate(self, run: Run) -> Outcome:
        metrics = run.status.get("metrics") or {}
        scores = Scores(metrics.get("evaluation") or {}, metrics.get("baseline") or {}, metrics.get("higherIsBetter") or {})
        found = check_requirements(run.resolved.gate.requirements, scores)
        if isinstance(found, Inconclusive):
            return Outcome("Failed", found.reason, found.message)
        missed = [verdict for verdict in found if not verdict.passed]
        fields = {"gate": {"passed": not missed, "requirements": [verdict.as_status() for verdict in found]}}
        message = "; ".join(verdict.message for verdict in missed or found)
        if missed:
            return Outcome("Failed", reasons.GATE_REJECTED, message, fields)
        return Outcome("Succeeded", reasons.GATE_PASSED, message, fields)
