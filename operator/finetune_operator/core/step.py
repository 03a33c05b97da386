"""One stage in one pass: started once the stages before it have ended, and followed until it ends itself."""

from __future__ import annotations

from finetune_contract.reasons import Reason
from finetune_operator.api import reasons
from finetune_operator.api.stages import WORKSPACE
from finetune_operator.api.status import MESSAGE_LIMIT

from . import attempt, stages
from .plan_builder import PlanBuilder
from .remedies import Failed, hint
from .run import StageStatus
from .stages import OperatorStage, Outcome, ProgramStage


def step(builder: PlanBuilder, stage: ProgramStage | OperatorStage) -> None:
    """Advance one stage as far as what was observed allows.

    An earlier release may have started the run without the stage. Then the round ends without it.
    """
    stage_status = builder.stages.get(stage.name)
    if stage_status is None:
        return
    if stage_status.state == "Pending" and (builder.suspended or not _unblocked(builder, stage)):
        return
    if isinstance(stage, ProgramStage):
        attempt.step(builder, stage, stage_status)
    elif not stage_status.ended:
        _evaluate(builder, stage, stage_status)


def _unblocked(builder: PlanBuilder, stage: ProgramStage | OperatorStage) -> bool:
    """Return whether the stage may start: the shared objects of this round exist, and the stages that it depends on have ended."""
    return builder.stages[WORKSPACE.name].ended and all(_passed(builder, name) for name in stages.GRAPH.predecessors[stage.name])


def _passed(builder: PlanBuilder, name: str) -> bool:
    """Return whether a stage, and all that it depends on, let those after it start. A skipped stage has not waited for others."""
    stage_status = builder.stages.get(name)
    if stage_status is None or stage_status.state == "Skipped":
        return all(_passed(builder, needed) for needed in stages.GRAPH.predecessors[name])
    if stage_status.state == "Succeeded":
        return True
    return stage_status.state == "Failed" and stages.GRAPH.by_name[name].allow_failure(builder.run)


def _evaluate(builder: PlanBuilder, stage: OperatorStage, stage_status: StageStatus) -> None:
    if builder.suspended:
        builder.set_stage(stage_status.but(reason=reasons.SUSPENDED, message=None))
        return
    outcome = stage.evaluate(builder.view)
    ended = outcome.state != "Running"
    builder.set_stage(stage_status.but(
        state=outcome.state, attempt=1, round=builder.run.round, started_at=stage_status.started_at or builder.time,
        finished_at=builder.time if ended else None, reason=str(outcome.reason), message=outcome.message[:MESSAGE_LIMIT] or None,
    ))  # fmt: skip
    builder.update_status(dict(outcome.status_fields))
    if isinstance(outcome.reason, Reason) and outcome.state == "Failed":
        _fail(builder, stage, outcome.reason, outcome)
    elif outcome.state == "Failed" and not stage.allow_failure(builder.run):
        _skip_successors(builder, stage, str(outcome.reason))


def _fail(builder: PlanBuilder, stage: OperatorStage, reason: Reason, outcome: Outcome) -> None:
    failed = Failed(stage.name, builder.run.resolved, builder.observed.settings.mode, outcome.message)
    builder.fields["failure"] = {
        "stage": stage.name, "reason": reason.name, "message": outcome.message[:MESSAGE_LIMIT], "hint": hint(reason, failed),
    }  # fmt: skip


def _skip_successors(builder: PlanBuilder, stage: OperatorStage, reason: str) -> None:
    """Skip the successors of a stage that has rejected the model."""
    for name in stages.GRAPH.successors[stage.name]:
        stage_status = builder.stages.get(name)
        if stage_status is not None and not stage_status.ended:
            builder.set_stage(stage_status.but(state="Skipped", reason=reason, finished_at=builder.time))
