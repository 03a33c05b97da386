"""The behavior of the operator: ``plan(run, observed, now)`` returns the next status and effects of a run.

Pure and total: no I/O, no clock, no randomness, no logging, and a decision for every state and every observation. As in
cert-manager, it is a chain of policies: the first that returns a decision wins.

A round of a run has these states::

    not started --resolve--> started --stages--> ended          (each step is one status write, then its effects)
         |                      |                  |
         +--rejected            +--a stage failed: what runs is stopped, then the run ends
         (edit spec: again)                        +--rerun.id changed: a new round
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from finetune_contract import CONTRACT_VERSION
from finetune_operator.api import reasons
from finetune_operator.api.stages import GATE, WORKSPACE
from finetune_operator.api.status import MESSAGE_LIMIT

from . import attempt, naming, preflight, shared_objects, stages
from .conditions import conditions, phase
from .decision import Create, Decision, Delete, Event
from .ended_run import cleanup_in, observed_status, pending_rerun, reject_rerun
from .events import events
from .manifests.children import document_digests
from .observation import Observed
from .paths import Json
from .plan_builder import PlanBuilder
from .preparation import prepare_workspace
from .progress import watch_progress
from .resolve import SpecRejection, resolve
from .run import Run, StageStatus
from .settings import Settings
from .step import step
from .summary import summary
from .times import seconds_between, stamp
from .trim import size_of, trim


def plan(run: Run, observed: Observed, now: datetime) -> Decision:
    """Return the next status and effects of ``run``, given what was observed at ``now``."""
    for policy in _POLICIES:
        decision = policy(run, observed, now)
        if decision is not None:
            return decision
    return advance(run, observed, now)


def leave_deleted(run: Run, _observed: Observed, _now: datetime) -> Decision | None:
    """Leave a run that is being deleted as it is: its children are garbage-collected with it."""
    return Decision(dict(run.status)) if run.deleting else None


def open_round(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """Open the next round of a run that has ended and has a new ``rerun.id``."""
    rerun = pending_rerun(run)
    if rerun is None:
        return None
    resolved = _resolve(run, observed)
    if isinstance(resolved, SpecRejection):
        message = f"rerun {rerun['id']}: it cannot start, and the run keeps its results: {resolved.message}"
        rejected = Event("Warning", resolved.reason.name, message[:MESSAGE_LIMIT])
        return Decision(reject_rerun(run, resolved.reason.name, message, now), events=(rejected,))
    again = stages.GRAPH.rerun(rerun["from"])
    number = run.round + 1
    builder = PlanBuilder(_with_status(run, {**_kept(run.status, again), "resolved": resolved, "round": number}), observed, now)
    for name in stages.GRAPH.definitions:
        old = run.stages.get(name)
        kept = old is not None and old.state == "Succeeded" and name not in again and name != WORKSPACE.name
        builder.set_stage(old if kept and old is not None else StageStatus(name, round=number))
    _begin(builder, rerun_id=rerun["id"])
    return _decide(builder)


def _kept(status: Mapping[str, Any], again: Sequence[str]) -> Json:
    """Return the status at the start of a round: without the fields of stages that run again, which may be skipped this time."""
    warnings = [warning for warning in status.get("warnings") or () if warning["stage"] not in again]
    kept = {**status, "warnings": warnings or None}
    for name in again:
        stage = stages.GRAPH.programs.get(name)
        for field in stage.OWNS if stage else ():
            section, _, inner = field.partition(".")
            values = {key: value for key, value in (kept.get(section) or {}).items() if key != inner} if inner else None
            kept[section] = values or None
    return kept


def keep_ended(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """Keep the status of an ended run. Only its finished children are removed, after ``cleanup.ttlAfterFinished``."""
    if not run.ended:
        return None
    if not run.started:
        changed = run.generation != run.status.get("observedGeneration")
        return None if changed else Decision(observed_status(run))
    status = observed_status(run)
    left = cleanup_in(run, now)
    if left is None:
        return Decision(status)
    if left > 0:
        return Decision(status, requeue_after=max(1.0, left))
    if observed.leftovers:
        return Decision(status, tuple(Delete(ref, uid) for ref, uid in observed.leftovers.items()), requeue_after=5.0)
    return Decision({**status, "cleanedAt": stamp(now)})


def start(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """Resolve the run and freeze the result; or reject it until it is edited."""
    if run.started:
        return None
    if run.spec.get("suspend"):
        return _decide(PlanBuilder(_with_status(run, {}), observed, now))
    resolved = _resolve(run, observed)
    if isinstance(resolved, SpecRejection):
        return _reject(run, observed, now, resolved)
    builder = PlanBuilder(_with_status(run, {"resolved": resolved, "round": 1}), observed, now)
    for name in stages.GRAPH.definitions:
        builder.set_stage(StageStatus(name))
    rerun = run.spec.get("rerun") or {}
    _begin(builder, rerun_id=rerun.get("id"))
    return _decide(builder)


def hold_unknown_contract(run: Run, observed: Observed, now: datetime) -> Decision | None:
    """Hold a run that another release started under an unknown contract version or with an unknown stage. Its stages are kept."""
    message = None if run.ended else _unknown_contract(run)
    if message is None:
        return None
    builder = PlanBuilder(run, observed, now)
    builder.blockers.append((reasons.CONTRACT_UNKNOWN, message))
    shown = {**(run.status.get("summary") or {}), "message": f"{reasons.CONTRACT_UNKNOWN}: {message}"[:128]}
    status = {**run.status, "conditions": conditions(builder), "summary": shown, "observedGeneration": run.generation}
    return Decision(status, events=events(run.status, run.stages, status, run.stages))


def _unknown_contract(run: Run) -> str | None:
    version = (run.status.get("resolved") or {}).get("contractVersion")
    if version != CONTRACT_VERSION:
        return f"status.resolved.contractVersion: this release does not know version {version}, only {CONTRACT_VERSION}"
    known = stages.GRAPH.definitions
    unknown = next((stage.name for stage in run.stages.values() if stage.name not in known and not stage.ended), None)
    return None if unknown is None else f"status.stages: this release does not know stage {unknown}"


def hold_forbidden(run: Run, message: str, now: datetime) -> Decision:
    """Hold a run whose objects the operator has no permission to read, and report that."""
    if run.ended or run.deleting:
        return Decision(dict(run.status))
    builder = PlanBuilder(run, _NOTHING, now)
    builder.blockers.append((reasons.FORBIDDEN, message))
    found = {
        "conditions": conditions(builder),
        "phase": phase(builder),
        "summary": summary(builder),
        "observedGeneration": run.generation,
    }
    return Decision({**run.status, **found}, events=events(run.status, run.stages, found, builder.stages))


_NOTHING = Observed(Settings("cluster", "", {}, ""))


def advance(run: Run, observed: Observed, now: datetime) -> Decision:
    """Advance every stage as far as what was observed allows."""
    builder = PlanBuilder(run, observed, now)
    if builder.get("failure"):
        _stop(builder)
    else:
        _advance(builder)
    return _decide(builder)


_POLICIES: tuple[Callable[[Run, Observed, datetime], Decision | None], ...] = (
    leave_deleted, open_round, keep_ended, start, hold_unknown_contract,
)  # fmt: skip


def _resolve(run: Run, observed: Observed) -> Json | SpecRejection:
    """Return what the run is resolved to, or why it cannot start: neither the fields nor the pods that they shape may be invalid."""
    resolved = resolve(run.spec, observed.settings)
    if isinstance(resolved, SpecRejection):
        return resolved
    claim = naming.workspace_claim(_with_status(run, {"resolved": resolved}))
    resolved = {**resolved, "volumeUri": str(resolved["volumeUri"]).replace("{claim}", claim)}
    return preflight.rejection(resolved, run, observed.invalid) or resolved


def _with_status(run: Run, status: Json) -> Run:
    return replace(run, status=status)


def _begin(builder: PlanBuilder, rerun_id: str | None) -> None:
    builder.fields.update({
        "startedAt": builder.run.status.get("startedAt") or builder.time, "finishedAt": None, "failure": None, "progress": None,
        "cleanedAt": None, "rerunId": rerun_id, "resolved": builder.run.status["resolved"], "round": builder.run.status["round"],
        "gate": builder.get("gate") if builder.stages[GATE.name].ended else None,
    })  # fmt: skip
    for stage in stages.GRAPH.stages:
        reason = stage.skipped(builder.run)
        if reason:
            builder.set_stage(builder.stages[stage.name].but(state="Skipped", reason=reason, finished_at=builder.time))
    digests = document_digests(shared_objects.documents(builder.view))
    builder.fields["resolved"] = {**builder.run.status["resolved"], "documents": digests}
    _advance(builder)


def _reject(run: Run, observed: Observed, now: datetime, rejection: SpecRejection) -> Decision:
    """End the run before it starts. After an edit of ``spec`` it is resolved again."""
    builder = PlanBuilder(_with_status(run, {}), observed, now)
    failure = {"reason": rejection.reason.name, "message": rejection.message[:MESSAGE_LIMIT], "hint": rejection.reason.remedy}
    builder.fields.update({"failure": failure, "finishedAt": builder.time})
    return _decide(builder)


def _advance(builder: PlanBuilder) -> None:
    prepare_workspace(builder)
    for stage in stages.GRAPH.stages:
        step(builder, stage)
    if builder.get("failure"):
        _stop(builder)
        return
    watch_progress(builder)
    _end_if_over(builder)


def _stop(builder: PlanBuilder) -> None:
    """Stop what runs. The objects that this pass was about to create are not created."""
    builder.effects = [effect for effect in builder.effects if not isinstance(effect, Create)]
    for stage_status in tuple(builder.stages.values()):
        attempt.stop(builder, stage_status)
    _end_if_over(builder)


def _end_if_over(builder: PlanBuilder) -> None:
    """End the run once every stage has ended and no child of it is left to be removed."""
    if not all(stage_status.ended and not stage_status.releasing for stage_status in builder.stages.values()):
        return
    builder.fields.update({"finishedAt": builder.time, "progress": None, "usage": _usage(builder)})


def _usage(builder: PlanBuilder) -> Json:
    usage = builder.get("usage") or {}
    return {
        "gpuSeconds": usage.get("gpuSeconds", 0.0),
        "wallSeconds": seconds_between(builder.get("startedAt"), builder.time) or 0.0,
    }


def _decide(builder: PlanBuilder) -> Decision:
    """Return the decision that the builder has collected."""
    run = builder.run
    builder.fields["stages"] = [stage_status.as_status() for stage_status in builder.stages.values()] or None
    status = {**run.status, **builder.fields}
    status.update({
        "observedGeneration": run.generation, "phase": phase(builder), "conditions": conditions(builder), "summary": summary(builder),
    })  # fmt: skip
    status = trim({key: value for key, value in status.items() if value is not None}, size_of(run.spec))
    return Decision(status, tuple(builder.effects), events(run.status, run.stages, status, builder.stages), builder.requeue_delay)
