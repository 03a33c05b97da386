"""The attempts of one stage with a child: start, follow, succeed, fail, retry."""

from __future__ import annotations

from finetune_contract.codec import DocumentError
from finetune_contract.crash import crash_location
from finetune_contract.reasons import CRASHED, INPUTS_REPLACED, Cause
from finetune_contract.redaction import redact
from finetune_contract.result import Result
from finetune_contract.workspace import Attempt
from finetune_operator.api import reasons
from finetune_operator.api.status import MESSAGE_LIMIT

from . import naming, ownership, shared_objects, usage
from .blockers import expected_pods, reason_of_rejection
from .decision import Create
from .diagnosis import LOG_LIMIT, Diagnosis, diagnose, read_result
from .manifests import children
from .manifests.trainjob import trainjob
from .messages import READ_LIMIT, status_message
from .observation import ChildState, child_ref, child_state, controller_of, failure_message
from .paths import Object
from .plan_builder import PlanBuilder
from .pod_report import PodReport
from .reads import shared_refs
from .release import holds, release, remove
from .remedies import Failed, hint
from .run import StageStatus
from .stages import ProgramStage
from .stages.base import inputs_digest
from .status_bounds import require_valid
from .waiting import STARTING_SECONDS, wait, wait_for_leftover

_LONGEST_PAUSE = 300.0
_NAME_LIMIT = 64
"""Characters of a name of another program in a message."""
_REPEATED = "; an earlier attempt crashed at the same place with the same inputs, so the stage is not retried"


def step(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> None:
    """Advance one stage as far as what was observed allows. If it is pending, the stages before it have ended."""
    if stage_status.state == "Pending":
        if stage.ready(builder.view, builder.observed):
            _start(builder, stage, stage_status)
    elif stage_status.state == "Running":
        ending = _follow(builder, stage, stage_status)
        if ending is not None:
            _fail(builder, stage, builder.stages[stage.name], ending)
    elif stage_status.state == "Retrying":
        _retry(builder, stage, stage_status)
    else:
        release(builder, stage_status)


def _start(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> None:
    """Start the first attempt of a round, or end the stage with the answer of an earlier run."""
    found = stage.earlier_answer(builder.view, builder.observed)
    if found is None:
        launch(builder, stage, stage_status)
        return
    builder.set_stage(stage_status.but(
        state="Succeeded", round=builder.run.round, inputs_digest=inputs_digest(stage, builder.view), reused=True,
        started_at=builder.time, finished_at=builder.time, reason=reasons.REUSED, message=found[:MESSAGE_LIMIT],
    ))  # fmt: skip


def launch(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> None:
    """Record the next attempt in status, and create its child afterwards."""
    attempt = Attempt(builder.run.round, stage_status.attempt + 1)
    kind = stage.definition.child_kind
    limit = naming.TRAINJOB_NAME_LIMIT if kind == "TrainJob" else naming.NAME_LIMIT
    stage_status = stage_status.but(
        state="Running", attempt=attempt.number, round=attempt.round, child_kind=kind, child_uid="",
        child_name=naming.child_name(builder.run.name, stage.name, attempt, limit),
        inputs_digest=inputs_digest(stage, builder.view), started_at=stage_status.started_at or builder.time, retry_at=None,
        reason=reasons.STARTING, message=None,
    )  # fmt: skip
    builder.set_stage(stage_status)
    _create(builder, stage, stage_status)


def _create(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> bool:
    """Create the child and return True; block the stage instead where the installed Kubeflow Trainer does not support it."""
    run, needs, trainer = builder.view, stage.pod(builder.view), builder.observed.settings.trainer
    if stage.definition.child_kind == "Job":
        build = children.job(run, stage_status, stage.program, needs, run.status["resolved"]["images"][stage.definition.image])
    elif trainer is None or not trainer.supported:
        reason = reasons.TRAINER_NOT_INSTALLED if trainer is None else reasons.TRAINER_UNSUPPORTED
        builder.block(stage_status, reason, reason.meaning)
        return False
    else:
        build = trainjob(run, stage_status, needs, trainer)
    builder.effects.append(Create(build, child_ref(stage_status)))
    if child_ref(stage_status) not in builder.observed.rejected:  # a rejected one is retried after its own pause
        builder.requeue_after(STARTING_SECONDS)
    return True


def _follow(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> Diagnosis | None:
    """Follow an attempt. Return why it has failed, or ``None``."""
    child = builder.observed.child(stage_status)
    if child is None:
        return _follow_absent(builder, stage, stage_status)
    if controller_of(child).get("uid") != builder.run.uid:
        return _follow_foreign(builder, stage_status, child)
    uid = child["metadata"]["uid"]
    if stage_status.child_uid and uid != stage_status.child_uid:
        return Diagnosis(reasons.CHILD_LOST, f"{_child(stage_status)} was replaced by another object.")
    pods = tuple(pod for pod in builder.observed.pods.get(stage.name, ()) if not pod.gone)
    stage_status = usage.record_start(builder, stage_status.but(child_uid=uid), pods)
    builder.set_stage(stage_status)
    state = child_state(child)
    if _all_done(builder, stage_status, pods):
        return _finish(builder, stage, stage_status, pods)
    if state is ChildState.FAILED or any(pod.failed for pod in pods):
        return diagnose(pods, builder.observed.logs, failure_message(child))
    if state is ChildState.SUCCEEDED:
        return _finish(builder, stage, stage_status, pods)
    ending = wait(builder, stage_status, child, pods)
    if ending is None and builder.stages[stage.name].reason == reasons.SUSPENDED and usage.have_stopped(builder, stage_status):
        builder.set_stage(usage.count(builder, builder.stages[stage.name]))
    return ending


def _follow_absent(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> Diagnosis | None:
    """Create the child of an attempt that has none. Return why the attempt has failed, or ``None``."""
    rejected = builder.observed.rejected.get(child_ref(stage_status))
    if stage_status.child_uid:
        return Diagnosis(reasons.CHILD_LOST, f"{_child(stage_status)} was deleted.")
    if rejected is not None:
        reason, waits = reason_of_rejection(rejected)
        if not waits:
            return Diagnosis(reason, rejected.message)
        builder.block(stage_status, reason, rejected.message)
        _create(builder, stage, stage_status)
    elif builder.suspended:
        builder.set_stage(stage_status.but(reason=reasons.SUSPENDED, message=None))
    elif _create(builder, stage, stage_status) and stage_status.reason in reasons.OPERATOR_REASONS:
        builder.block(
            stage_status, reasons.OPERATOR_REASONS[stage_status.reason], stage_status.message or ""
        )  # the blocker stays until the child exists
    return None


def _follow_foreign(builder: PlanBuilder, stage_status: StageStatus, child: Object) -> Diagnosis | None:
    """Wait for the deletion of the child of an earlier run of that name. Any other object is a conflict."""
    if wait_for_leftover(builder, stage_status, child):
        return None
    builder.set_stage(stage_status.but(child_uid=""))
    return Diagnosis(
        reasons.NAME_CONFLICT,
        f"{_child(stage_status)}: it exists and does not belong to this run; delete it, or use another run name.",
    )


def _child(stage_status: StageStatus) -> str:
    return f"{stage_status.child_kind} {stage_status.child_name}"


def _all_done(builder: PlanBuilder, stage_status: StageStatus, pods: tuple[PodReport, ...]) -> bool:
    """Return whether the stage's container has succeeded in every pod.

    The Job reports it a moment later, and never if a sidecar does not end or ends with an error.
    """
    return sum(pod.succeeded for pod in pods) >= expected_pods(builder.run, stage_status)


def _finish(
    builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus, pods: tuple[PodReport, ...]
) -> Diagnosis | None:
    """Record the result of an attempt that has succeeded. Return what its result lacks, or ``None``."""
    first = next((pod for pod in pods if pod.rank == 0 and pod.termination is not None), None)
    try:
        result = read_result(first) if first else None
        if result is None:
            return Diagnosis(reasons.RESULT_MISSING, "The stage succeeded, but its result is gone.")
        missing = _missing_proof(builder, stage, stage_status, result)
        if missing:
            return Diagnosis(reasons.PROOF_MISSING, f"{missing}.", 0, first.name if first else None)
        succeeded = usage.count(builder, stage_status).but(
            state="Succeeded", finished_at=builder.time, output_digest=stage.output_digest(result), result_digest=result.file_digest,
            reused=result.reused,
            reason=reasons.REUSED if result.reused else reasons.SUCCEEDED, message=status_message(result.message) or None,
            releasing=holds(builder, stage_status),
        )  # fmt: skip
        found = stage.status_fields(builder.view, result)
        require_valid({**found, "stages": [succeeded.as_status()]})
    except DocumentError as error:
        return Diagnosis(reasons.CONTRACT_UNKNOWN, str(error))
    builder.set_stage(succeeded)
    builder.update_status(found)
    builder.warn(stage.name, result.warnings)
    record = stage.record(builder.view, result, first) if first else None
    builder.effects += [record] if record else []
    return None


def _missing_proof(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus, result: Result) -> str | None:
    if result.stage != stage.name:
        return f"the result belongs to stage {result.stage[:_NAME_LIMIT]!r}"
    if result.outcome != "Succeeded":
        return f"the outcome in the result is {result.outcome}"
    if result.inputs_digest != stage_status.inputs_digest:
        return "the result belongs to other inputs"
    return stage.verify(builder.run, result)


def _fail(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus, diagnosis: Diagnosis) -> None:
    """End an attempt. The stage is retried if the cause allows it; otherwise it has failed."""
    failures = dict(stage_status.failures)
    if diagnosis.cause is not Cause.INTERRUPTED:
        failures[diagnosis.cause.value] = failures.get(diagnosis.cause.value, 0) + 1
    count = failures.get(diagnosis.cause.value, 0)
    crash = _crash(stage_status, diagnosis)
    repeated = crash is not None and crash == stage_status.crash
    message = f"{diagnosis.message[:READ_LIMIT]}{_REPEATED if repeated else ''}"
    stage_status = usage.count(builder, stage_status).but(
        failures=failures,
        reason=diagnosis.reason.name,
        message=status_message(message) or None,
        crash=crash or stage_status.crash,
    )
    removing = remove(builder, stage_status)
    if count <= _allowed(builder, diagnosis.cause) and not repeated:
        pause = _pause(builder, diagnosis.cause, count)
        builder.set_stage(stage_status.but(state="Retrying", retry_at=builder.later(pause)))
        builder.requeue_after(pause)
        return
    builder.set_stage(stage_status.but(state="Failed", finished_at=builder.time, releasing=removing))
    if not stage.allow_failure(builder.run):
        builder.fields["failure"] = _failure(builder, stage_status, diagnosis)


def _crash(stage_status: StageStatus, diagnosis: Diagnosis) -> str | None:
    """Return the identity of a crash: exception, file, line and inputs; ``None`` for any other end."""
    place = crash_location(diagnosis.message) if diagnosis.reason is CRASHED else None
    return f"{place[:200]}, inputs {(stage_status.inputs_digest or '')[:12]}" if place else None


def _allowed(builder: PlanBuilder, cause: Cause) -> int:
    retry = builder.run.retry
    return {Cause.TRANSIENT: retry.transient, Cause.CRASH: retry.crash, Cause.LOST: retry.lost}.get(cause, 0)


def _pause(builder: PlanBuilder, cause: Cause, count: int) -> float:
    """Return the seconds before a retry: they double after transient failures and crashes; lost or interrupted attempts are repeated at once."""
    if cause in (Cause.LOST, Cause.INTERRUPTED):
        return 0.0
    return min(_LONGEST_PAUSE, builder.observed.settings.retry_seconds * 2.0 ** (count - 1))


def _failure(builder: PlanBuilder, stage_status: StageStatus, diagnosis: Diagnosis) -> dict[str, object]:
    log = builder.observed.logs.get(diagnosis.pod or "", "")
    failed = Failed(stage_status.name, builder.run.resolved, builder.observed.settings.mode, stage_status.message or "")
    found = {
        "stage": stage_status.name, "reason": diagnosis.reason.name, "message": stage_status.message, "exitCode": diagnosis.exit_code,
        "hint": hint(diagnosis.reason, failed), "logTail": redact(log[-LOG_LIMIT:])[-2048:] or None,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def _retry(builder: PlanBuilder, stage: ProgramStage, stage_status: StageStatus) -> None:
    if remove(builder, stage_status):
        return
    if stage_status.retry_at and stage_status.retry_at > builder.time:
        builder.requeue_at(stage_status.retry_at)
    elif not builder.suspended and not _waits_for_inputs(builder, stage_status):
        launch(builder, stage, stage_status)


def _waits_for_inputs(builder: PlanBuilder, stage_status: StageStatus) -> bool:
    """After a pod found a ConfigMap with other content, return whether one is still not ours. Missing ones are created."""
    if stage_status.reason != INPUTS_REPLACED.name:
        return False
    objects = builder.observed.objects
    shared_objects.renew(builder, [ref for ref in shared_refs(builder.view) if ref not in objects])
    refs = shared_refs(builder.view)
    for ref in (ref for ref in refs if ref not in objects):
        shared_objects.create(builder, ref)
    conflict = next(
        (found for ref in refs if ref in objects and (found := ownership.conflict(builder.view, ref, builder.observed))), None
    )
    if conflict is not None:
        builder.blockers.append((reasons.NAME_CONFLICT, f"stage {stage_status.name}: {conflict}"))
        builder.requeue_after(builder.observed.settings.progress_seconds)
    return conflict is not None


def stop(builder: PlanBuilder, stage_status: StageStatus) -> None:
    """End a stage of a run in which another stage failed."""
    if stage_status.ended:
        release(builder, stage_status)
        return
    if remove(builder, stage_status):
        return
    stage_status = usage.count(builder, stage_status)
    builder.set_stage(stage_status.but(state="Skipped", finished_at=builder.time, reason=reasons.RUN_FAILED, message=None))
