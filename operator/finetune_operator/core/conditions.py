"""Conditions and phase of a run, from the status of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_operator.api import reasons
from finetune_operator.api.stages import WORKSPACE

from . import stages
from .condition import new_condition
from .paths import Json
from .plan_builder import PlanBuilder
from .run import StageStatus, all_stopped


def conditions(builder: PlanBuilder) -> list[Json]:
    """Return every condition of the run. ``lastTransitionTime`` changes only with ``status``."""
    return [new_condition(builder.run, *line, time=builder.time) for line in _all(builder)]


_Line = tuple[str, str, str, str]


def _all(builder: PlanBuilder) -> Iterator[_Line]:
    failure, ended = builder.get("failure"), bool(builder.get("finishedAt"))
    yield _succeeded(builder, failure, ended)
    yield ("Finished", _truth(ended), reasons.RUN_FINISHED if ended else reasons.RUNNING, "The run has ended." if ended else "")
    yield _reconciling(builder, failure, ended)  # before Stalled: kstatus takes the first of the two that is True
    yield _stalled(builder, failure, ended) or ("Stalled", "False", reasons.RUN_FINISHED if ended else reasons.RUNNING, "")
    held = builder.suspended and not ended
    yield ("Suspended", _truth(held), reasons.SUSPENDED if held else reasons.NOT_SUSPENDED, "")
    yield _workspace_ready(builder)
    for name, type_ in stages.GRAPH.conditions:
        yield _stage_condition(type_, builder.stages.get(name))


def _truth(value: bool) -> str:
    return "True" if value else "False"


def _succeeded(builder: PlanBuilder, failure: Mapping[str, Any] | None, ended: bool) -> _Line:
    if failure:
        reason = str(failure["reason"]) if ended else reasons.STOPPING
        return ("Succeeded", "False" if ended else "Unknown", reason, str(failure.get("message") or ""))
    if ended:
        return _rejected(builder, "Succeeded", "False") or ("Succeeded", "True", reasons.SUCCEEDED, "")
    return ("Succeeded", "Unknown", reasons.RUNNING if builder.stages else reasons.WAITING, "")


def _reconciling(builder: PlanBuilder, failure: Mapping[str, Any] | None, ended: bool) -> _Line:
    """Abnormal-true, as kstatus reads it: the run has not ended, and its next step needs no action by a user."""
    if ended:
        return ("Reconciling", "False", reasons.RUN_FINISHED, "")
    if failure:
        return ("Reconciling", "True", reasons.STOPPING, "")
    blocker = builder.blocker
    if blocker:
        return ("Reconciling", _truth(reasons.resumes_alone(blocker[0])), blocker[0].name, blocker[1])
    if builder.suspended:
        stopped = all_stopped(builder.stages.values())
        return ("Reconciling", _truth(not stopped), reasons.SUSPENDED if stopped else reasons.SUSPENDING, "")
    return ("Reconciling", "True", reasons.RUNNING, "")


def _stalled(builder: PlanBuilder, failure: Mapping[str, Any] | None, ended: bool) -> _Line | None:
    """Abnormal-true, as kstatus reads it: the run has failed, or waits for something outside."""
    if failure and ended:
        return ("Stalled", "True", str(failure["reason"]), str(failure.get("message") or ""))
    if ended:
        return _rejected(builder, "Stalled", "True")
    if failure or not builder.blocker:
        return None
    reason, message = builder.blocker
    return ("Stalled", "True", reason.name, f"{message.rstrip(' .')}. {reason.remedy}")


def _rejected(builder: PlanBuilder, type_: str, status: str) -> _Line | None:
    rejection = builder.model_rejection
    return (type_, status, str(rejection.reason), rejection.message or "") if rejection else None


def _workspace_ready(builder: PlanBuilder) -> _Line:
    """Whether the objects that every stage mounts exist, and the claim is bound."""
    for reason, message in builder.blockers:
        if reason in reasons.CLAIM_REASONS:
            return ("WorkspaceReady", "False", reason.name, message)
    stage_status = builder.stages.get(WORKSPACE.name)
    if stage_status is not None and stage_status.state == "Succeeded" and stage_status.reason == reasons.CLAIM_NOT_BOUND:
        return ("WorkspaceReady", "Unknown", reasons.CLAIM_NOT_BOUND, stage_status.message or "")
    return _stage_condition("WorkspaceReady", stage_status)


_BY_STATE = {"Succeeded": "True", "Failed": "False", "Skipped": "False"}


def _stage_condition(type_: str, stage_status: StageStatus | None) -> _Line:
    if stage_status is None:
        return (type_, "Unknown", reasons.WAITING, "")
    default = reasons.WAITING if stage_status.state == "Pending" else stage_status.state
    return (type_, _BY_STATE.get(stage_status.state, "Unknown"), stage_status.reason or default, stage_status.message or "")


def phase(builder: PlanBuilder) -> str:
    """Return the phase of the run: the latest one that a stage of this round has started. Nothing branches on it."""
    if builder.get("finishedAt"):
        return "Failed" if builder.get("failure") else "Rejected" if builder.model_rejection else "Succeeded"
    if builder.suspended:
        return "Suspended"
    for stage, word in stages.GRAPH.phases:
        stage_status = builder.stages.get(stage)
        if stage_status is not None and stage_status.started_at and stage_status.round == builder.run.round:
            return word
    return "Preparing" if builder.stages else "Pending"
