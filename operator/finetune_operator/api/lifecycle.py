"""Queue, limits, retries and cleanup of a run, and the fields that control it after its start: rerun and approval."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Duration, ObjectName, OneOf, Section, text
from .stages import RERUN_TARGETS

RerunStage = Annotated[str, OneOf(RERUN_TARGETS)]
Times = Annotated[int, Field(ge=0, le=100)]


class Queue(Section):
    """Kueue: every stage with GPUs waits for quota, and waiting costs no time limit."""

    name: ObjectName = Field(description="LocalQueue of the run's namespace.")
    priority: ObjectName | None = Field(None, description="WorkloadPriorityClass. Default: the queue's.")


class Limits(Section):
    """How long things may take. A limit that is not given does not exist."""

    pending: Duration | None = Field(None, description="From a child's creation until its pods run, queueing not counted.")
    stage: Duration | None = Field(None, description="For one attempt of one stage.")
    total: Duration | None = Field(None, description="For the whole run, suspended time not counted.")
    gpu_hours: Annotated[float, Field(gt=0)] | None = Field(None, description="GPUs x hours of all attempts together.")


class Retry(Section):
    """How many more attempts a stage gets, by the cause of the failure. Interruptions never count."""

    transient: Times | None = Field(None, description="After passing faults: network, busy services.")
    crash: Times | None = Field(None, description="After a program that ended without saying why.")
    lost: Times | None = Field(None, description="After a pod or child that disappeared: evicted, deleted, node gone.")
    out_of_memory: Literal["Fail", "ReduceBatch"] | None = Field(
        None, description="Fail, or try again with half the tokens in a forward pass (same effective batch)."
    )


class Cleanup(Section):
    """What is removed, and when. The FineTuneRun itself is never removed."""

    ttl_after_finished: Duration | None = Field(None, description="How long finished pods stay readable with oc logs.")
    volume: Literal["Retain", "Delete"] | None = Field(
        None, description="What becomes of the claim that the run made, when the run is deleted."
    )
    checkpoints: Literal["Keep", "Delete"] | None = Field(
        None, description="What becomes of checkpoints/ when the run has succeeded."
    )
    pods: Literal["Keep", "DeleteSucceeded"] | None = Field(None, description="Which finished pods wait for ttlAfterFinished.")


class Rerun(Section):
    """Run a finished run again, from one stage on. A new id starts a new round; stages before it keep their results."""

    id: Annotated[str, text(63, r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", "a word of letters, digits, '-', '_' and '.'")] = (
        Field(description="Any new word; a date, a ticket, a counter.")
    )
    from_: RerunStage = Field(alias="from", description="First stage to run again.")


class ApprovalDecision(Section):
    """A person's word on the model that waits at the gate."""

    decision: Literal["Approved", "Rejected"] = Field(description="The word.")
    of: Annotated[str, text(128)] = Field(description="What it is about: the value of status.gate.subject.")
    by: Annotated[str, text(256)] = Field(description="Who says so.")
    note: Annotated[str, text(1024)] | None = Field(None, description="Why.")
