"""The gate stage: its requirements are evaluated once all scores are known, and the model passes or is rejected."""

from __future__ import annotations

from finetune_operator.api import reasons
from finetune_operator.api.status import MESSAGE_LIMIT

from .draft import Draft
from .gate import Scores, Unjudgeable, Verdict, judge
from .remedies import Failed, hint
from .run import StageRecord
from .stages import GATE, STAGE
from .stages.gate import requirements


def admit(draft: Draft) -> None:
    """Evaluate the gate's requirements once evaluation and baseline have ended, and record the verdict."""
    record = draft.records[GATE]
    if (
        record.ended
        or draft.suspended
        or not all(draft.records[name].state in ("Succeeded", "Skipped") for name in STAGE[GATE].after)
    ):
        return
    record = record.but(attempt=1, round=draft.run.round, started_at=draft.time, finished_at=draft.time)
    metrics = draft.get("metrics") or {}
    scores = Scores(metrics.get("evaluation") or {}, metrics.get("baseline") or {}, metrics.get("higherIsBetter") or {})
    found = judge(requirements(draft.run), scores)
    if isinstance(found, Unjudgeable):
        _fail(draft, record, found)
    else:
        _decide(draft, record, found)


def _fail(draft: Draft, record: StageRecord, found: Unjudgeable) -> None:
    draft.record(record.but(state="Failed", reason=found.reason.name, message=found.message[:MESSAGE_LIMIT]))
    draft.fields["failure"] = {
        "stage": GATE, "reason": found.reason.name, "message": found.message[:MESSAGE_LIMIT], "hint": hint(found.reason, Failed(GATE, draft.run.resolved)),
    }  # fmt: skip


def _decide(draft: Draft, record: StageRecord, verdicts: list[Verdict]) -> None:
    missed = [verdict for verdict in verdicts if not verdict.passed]
    draft.fields["gate"] = {"passed": not missed, "requirements": [verdict.as_status() for verdict in verdicts]}
    if not missed:
        met = "; ".join(verdict.message for verdict in verdicts)
        draft.record(record.but(state="Succeeded", reason=reasons.GATE_PASSED, message=met[:MESSAGE_LIMIT]))
        return
    message = "; ".join(verdict.message for verdict in missed)[:MESSAGE_LIMIT]
    draft.record(record.but(state="Failed", reason=reasons.GATE_REJECTED, message=message))
    if not STAGE[GATE].forgiven(draft.run):
        registration = draft.records["registration"]
        if not registration.ended:  # without a registry it is left out already
            draft.record(registration.but(state="Skipped", reason=reasons.GATE_REJECTED, finished_at=draft.time))
