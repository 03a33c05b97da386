"""The life of one stage with a child: begin, follow, succeed, fail, try again."""

from __future__ import annotations

from finetune_contract.codec import DocumentError
from finetune_contract.crash import crash_place
from finetune_contract.reasons import CRASHED, Cause
from finetune_contract.result import Result
from finetune_contract.workspace import Attempt
from finetune_operator.api import reasons
from finetune_operator.api.status import MESSAGE_LIMIT

from . import naming
from .decision import Create
from .diagnosis import Diagnosis, diagnose, read_result
from .draft import Draft
from .manifests import children
from .manifests.trainjob import trainjob
from .observation import ChildState, Object, child_ref, child_state, controller_of, failure_message
from .obstacles import expected_pods, refusal
from .pod_report import PodReport
from .release import holds, release, remove
from .remedies import Failed, hint
from .run import StageRecord
from .stages import STAGE, ProgramStage
from .stages.base import inputs_digest
from .waiting import STARTING_SECONDS, wait, wait_for_leftover

_LONGEST_PAUSE = 300.0
_REPEATED = "; an earlier attempt crashed at the same place with the same inputs, so there is no further one"


def step(draft: Draft, stage: ProgramStage) -> None:
    """Bring one stage as far as what was observed allows."""
    record = draft.records[stage.name]
    if record.state == "Pending" and not draft.suspended:
        if all(_passed(draft, name) for name in stage.after) and stage.ready(draft.view, draft.observed):
            launch(draft, stage, record)
    elif record.state == "Running":
        _follow(draft, stage, record)
    elif record.state == "Retrying":
        _retry(draft, stage, record)
    else:
        release(draft, record)


def _passed(draft: Draft, name: str) -> bool:
    record = draft.records[name]
    return record.state in ("Succeeded", "Skipped") or (record.state == "Failed" and STAGE[name].forgiven(draft.run))


def launch(draft: Draft, stage: ProgramStage, record: StageRecord) -> None:
    """Intend the next attempt, and make its child once the intent is written."""
    attempt = Attempt(draft.run.round, record.attempt + 1)
    limit = naming.TRAINJOB_LIMIT if stage.kind == "TrainJob" else naming.OBJECT_LIMIT
    record = record.but(
        state="Running", attempt=attempt.number, round=attempt.round, child_kind=stage.kind, child_uid="",
        child_name=naming.child_name(draft.run.name, stage.name, attempt, limit),
        inputs_digest=inputs_digest(stage, draft.view), started_at=record.started_at or draft.time, retry_at=None,
        reason=reasons.STARTING, message=None,
    )  # fmt: skip
    draft.record(record)
    _create(draft, stage, record)


def _create(draft: Draft, stage: ProgramStage, record: StageRecord) -> bool:
    """Make the child, unless nobody could do anything with it: then the stage is blocked."""
    run, needs, trainer = draft.view, stage.pod(draft.view), draft.observed.settings.trainer
    if stage.kind == "Job":
        build = children.job(run, record, stage.program, needs, stage.image or stage.program)
    elif trainer is None or not trainer.supported:
        reason = reasons.TRAINER_NOT_INSTALLED if trainer is None else reasons.TRAINER_UNSUPPORTED
        draft.block(record, reason, reason.meaning)
        return False
    else:
        build = trainjob(run, record, needs, trainer)
    draft.effects.append(Create(build, child_ref(record)))
    draft.look_again(STARTING_SECONDS)
    return True


def _follow(draft: Draft, stage: ProgramStage, record: StageRecord) -> None:
    child = draft.observed.child(record)
    if child is None:
        _follow_absent(draft, stage, record)
        return
    if not _is_ours(draft, stage, record, child):
        return
    uid = child["metadata"]["uid"]
    if record.child_uid and uid != record.child_uid:
        fail_attempt(draft, stage, record, Diagnosis(reasons.CHILD_LOST, f"{record.child_name} was replaced by another object."))
        return
    record = record.but(child_uid=uid)
    draft.record(record)
    pods = tuple(pod for pod in draft.observed.pods.get(stage.name, ()) if not pod.gone)
    state = child_state(child)
    if _all_done(draft, record, pods):
        _finish(draft, stage, record, pods)
    elif state is ChildState.FAILED or any(pod.failed for pod in pods):
        fail_attempt(draft, stage, record, diagnose(pods, draft.observed.logs, failure_message(child)))
    elif state is ChildState.SUCCEEDED:
        _finish(draft, stage, record, pods)
    else:
        ending = wait(draft, record, child, pods)
        if ending is not None:
            fail_attempt(draft, stage, record, ending)


def _follow_absent(draft: Draft, stage: ProgramStage, record: StageRecord) -> None:
    refused = draft.observed.refused.get(child_ref(record))
    if record.child_uid:
        fail_attempt(draft, stage, record, Diagnosis(reasons.CHILD_LOST, f"{record.child_kind} {record.child_name} was deleted."))
    elif refused is not None:
        reason, waits = refusal(refused)
        if waits:
            draft.block(record, reason, refused.message)
            _create(draft, stage, record)
        else:
            fail_attempt(draft, stage, record, Diagnosis(reason, refused.message))
    elif draft.suspended:
        draft.record(record.but(reason=reasons.SUSPENDED, message=None))
    elif _create(draft, stage, record) and record.reason in reasons.CONTROL_REASONS:
        draft.block(record, reasons.CONTROL_REASONS[record.reason], record.message or "")  # it stands until the child is there


def _is_ours(draft: Draft, stage: ProgramStage, record: StageRecord, child: Object) -> bool:
    """A child belongs to us by our uid; one of an earlier run of our name is about to be collected, any other is a stranger."""
    if controller_of(child).get("uid") == draft.run.uid:
        return True
    if wait_for_leftover(draft, record, child):
        return False
    message = f"{record.child_kind} {record.child_name} exists already and belongs to somebody else."
    fail_attempt(draft, stage, record.but(child_uid=""), Diagnosis(reasons.NAME_CONFLICT, message))
    return False


def _all_done(draft: Draft, record: StageRecord, pods: tuple[PodReport, ...]) -> bool:
    """Whether the stage's container has succeeded in every pod.

    It is known a moment before the Job's status, and the Job's status is not if a sidecar never ends, or ends with an error.
    """
    return sum(pod.succeeded for pod in pods) >= expected_pods(draft.run, record)


def _finish(draft: Draft, stage: ProgramStage, record: StageRecord, pods: tuple[PodReport, ...]) -> None:
    first = next((pod for pod in pods if pod.rank == 0 and pod.termination is not None), None)
    try:
        result = read_result(first) if first else None
        if result is None:
            fail_attempt(
                draft, stage, record, Diagnosis(reasons.RESULT_MISSING, "It ended with success, but its result is gone.")
            )
            return
        missing = _missing_proof(draft, stage, record, result)
    except DocumentError as error:
        fail_attempt(draft, stage, record, Diagnosis(reasons.CONTRACT_UNKNOWN, str(error)))
        return
    if missing:
        fail_attempt(draft, stage, record, Diagnosis(reasons.PROOF_MISSING, f"{missing}.", 0, first.name if first else None))
        return
    draft.record(record.but(
        state="Succeeded", finished_at=draft.time, output_digest=stage.output_digest(result), reused=result.reused,
        reason=reasons.REUSED if result.reused else reasons.SUCCEEDED, message=result.message or None,
        releasing=holds(draft, record),
    ))  # fmt: skip
    draft.tell(stage.tell(draft.view, result))
    draft.warn(stage.name, result.warnings)


def _missing_proof(draft: Draft, stage: ProgramStage, record: StageRecord, result: Result) -> str | None:
    if result.outcome != "Succeeded":
        return f"its result says {result.outcome}"
    if result.inputs_digest != record.inputs_digest:
        return "its result belongs to other inputs"
    return stage.prove(draft.run, result)


def fail_attempt(draft: Draft, stage: ProgramStage, record: StageRecord, diagnosis: Diagnosis) -> None:
    """End an attempt: another one follows if the cause allows it, else the stage has failed."""
    failures = dict(record.failures)
    if diagnosis.cause is not Cause.INTERRUPTED:
        failures[diagnosis.cause.value] = failures.get(diagnosis.cause.value, 0) + 1
    count = failures.get(diagnosis.cause.value, 0)
    crash = _crash(record, diagnosis)
    repeated = crash is not None and crash == record.crash
    message = f"{diagnosis.message}{_REPEATED if repeated else ''}"
    record = record.but(
        failures=failures, reason=diagnosis.reason.name, message=message[:MESSAGE_LIMIT] or None, crash=crash or record.crash
    )
    removing = remove(draft, record)
    if count <= _allowed(draft, diagnosis.cause) and not repeated:
        pause = _pause(draft, diagnosis.cause, count)
        draft.record(record.but(state="Retrying", retry_at=draft.later(pause)))
        draft.look_again(pause)
        return
    draft.record(record.but(state="Failed", finished_at=draft.time, releasing=removing))
    if not stage.forgiven(draft.run):
        draft.fields["failure"] = _failure(draft, record, diagnosis)


def _crash(record: StageRecord, diagnosis: Diagnosis) -> str | None:
    """What a crash is compared by: exception, file and line, and the inputs; ``None`` for any other end."""
    place = crash_place(diagnosis.message) if diagnosis.reason is CRASHED else None
    return f"{place[:200]}, inputs {(record.inputs_digest or '')[:12]}" if place else None


def _allowed(draft: Draft, cause: Cause) -> int:
    retry = draft.run.mutable("retry")
    limits = {Cause.TRANSIENT: "transient", Cause.CRASH: "crash", Cause.LOST: "lost"}
    return int(retry.get(limits[cause], 0)) if cause in limits else 0


def _pause(draft: Draft, cause: Cause, count: int) -> float:
    """Passing faults get a pause that doubles; what was lost or interrupted goes on at once."""
    if cause in (Cause.LOST, Cause.INTERRUPTED):
        return 0.0
    return min(_LONGEST_PAUSE, draft.observed.settings.retry_seconds * 2.0 ** (count - 1))


def _failure(draft: Draft, record: StageRecord, diagnosis: Diagnosis) -> dict[str, object]:
    log = draft.observed.logs.get(diagnosis.pod or "", "")
    found = {
        "stage": record.name, "reason": diagnosis.reason.name, "message": record.message, "exitCode": diagnosis.exit_code,
        "hint": hint(diagnosis.reason, Failed(record.name, draft.run.resolved, draft.observed.settings.mode)), "logTail": log[-2048:] or None,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def _retry(draft: Draft, stage: ProgramStage, record: StageRecord) -> None:
    if remove(draft, record):
        return
    if record.retry_at and record.retry_at > draft.time:
        draft.look_again_at(record.retry_at)
    elif not draft.suspended:
        launch(draft, stage, record)


def stop(draft: Draft, record: StageRecord) -> None:
    """End a stage of a run that has failed elsewhere."""
    if record.ended:
        release(draft, record)
        return
    if remove(draft, record):
        return
    draft.record(record.but(state="Skipped", finished_at=draft.time, reason=reasons.RUN_FAILED, message=None))
