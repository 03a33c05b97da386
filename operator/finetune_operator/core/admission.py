"""The gate stage: its requirements are evaluated once all scores are known, and the model passes or is rejected."""

from __future__ import annotations

from finetune_operator.api import reasons
from finetune_operator.api.status import MESSAGE_LIMIT

from .gate import Inconclusive, Scores, Verdict, check_requirements
from .plan_builder import PlanBuilder
from .remedies import Failed, hint
from .run import StageStatus
from .stages import GATE, STAGE


def admit(builder: PlanBuilder) -> None:
    """Evaluate the gate's requirements once evaluation and baseline have ended, and record the verdict."""
    stage_status = builder.stages[GATE]
    if (
        stage_status.ended
        or builder.suspended
        or not all(builder.stages[name].state in ("Succeeded", "Skipped") for name in STAGE[GATE].depends_on)
    ):
        return
    stage_status = stage_status.but(attempt=1, round=builder.run.round, started_at=builder.time, finished_at=builder.time)
    metrics = builder.get("metrics") or {}
    scores = Scores(metrics.get("evaluation") or {}, metrics.get("baseline") or {}, metrics.get("higherIsBetter") or {})
    found = check_requirements(builder.run.resolved.gate.requirements, scores)
    if isinstance(found, Inconclusive):
        _fail(builder, stage_status, found)
    else:
        _decide(builder, stage_status, found)


def _fail(builder: PlanBuilder, stage_status: StageStatus, found: Inconclusive) -> None:
    builder.set_stage(stage_status.but(state="Failed", reason=found.reason.name, message=found.message[:MESSAGE_LIMIT]))
    builder.fields["failure"] = {
        "stage": GATE, "reason": found.reason.name, "message": found.message[:MESSAGE_LIMIT], "hint": hint(found.reason, Failed(GATE, builder.run.resolved)),
    }  # fmt: skip


def _decide(builder: PlanBuilder, stage_status: StageStatus, verdicts: list[Verdict]) -> None:
    missed = [verdict for verdict in verdicts if not verdict.passed]
    builder.fields["gate"] = {"passed": not missed, "requirements": [verdict.as_status() for verdict in verdicts]}
    if not missed:
        met = "; ".join(verdict.message for verdict in verdicts)
        builder.set_stage(stage_status.but(state="Succeeded", reason=reasons.GATE_PASSED, message=met[:MESSAGE_LIMIT]))
        return
    message = "; ".join(verdict.message for verdict in missed)[:MESSAGE_LIMIT]
    builder.set_stage(stage_status.but(state="Failed", reason=reasons.GATE_REJECTED, message=message))
    if not STAGE[GATE].allow_failure(builder.run):
        registration = builder.stages["registration"]
        if not registration.ended:  # without a registry it is left out already
            builder.set_stage(registration.but(state="Skipped", reason=reasons.GATE_REJECTED, finished_at=builder.time))
