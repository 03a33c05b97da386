"""Queue, limits, retries and cleanup of a run, and the fields that control it after its start: rerun and approval."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Duration, ObjectName, OneOf, Quantity, Section, text
from .stages import RERUN_TARGETS

RerunStage = Annotated[str, OneOf(RERUN_TARGETS)]
Times = Annotated[int, Field(ge=0, le=100)]


class Queue(Section):
    """Kueue queue. Every stage with GPUs waits for quota; waiting does not count against limits."""

    name: ObjectName = Field(description="Name of the LocalQueue in the namespace of the run.")
    priority: ObjectName | None = Field(
        None, description="Name of the WorkloadPriorityClass. Default: the priority of the queue."
    )


class Limits(Section):
    """Time and GPU limits of the run. Default: no limits."""

    pending: Duration | None = Field(
        None,
        description="Longest time from the creation of a Job or TrainJob until its pods run, without the time in a "
        "queue, as a duration such as 30m.",
    )
    stage: Duration | None = Field(None, description="Longest time of one attempt of one stage, as a duration such as 12h.")
    total: Duration | None = Field(
        None, description="Longest time of the whole run, without the time in which it is suspended, as a duration such as 48h."
    )
    gpu_hours: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest number of GPU hours of all attempts together."
    )


class Retry(Section):
    """Number of retries of a failed stage, by cause of the failure. Interruptions are not counted."""

    transient: Times | None = Field(
        None, description="Number of retries after transient failures, such as a network error or an overloaded service."
    )
    crash: Times | None = Field(None, description="Number of retries after a program ended without a reason.")
    lost: Times | None = Field(
        None, description="Number of retries after a pod, Job or TrainJob was evicted or deleted, or its node failed."
    )
    out_of_memory: Literal["Fail", "ReduceBatch"] | None = Field(
        None,
        description="Handling of an out-of-memory failure. Fail fails the run. ReduceBatch retries with half the "
        "tokens per forward pass and the same effective batch size.",
    )


class Cleanup(Section):
    """What is removed after the run has finished, and when. The FineTuneRun itself is never removed."""

    ttl_after_finished: Duration | None = Field(
        None, description="How long finished pods are kept, so that their logs can be read, as a duration such as 24h."
    )
    volume: Literal["Retain", "Delete"] | None = Field(
        None, description="Whether the claim that the operator created is retained or deleted when the run is deleted."
    )
    checkpoints: Literal["Keep", "Delete"] | None = Field(
        None, description="Whether checkpoints are kept or deleted when the run has succeeded."
    )
    cache_size: Quantity | None = Field(
        None,
        description="Largest size of the caches of data and base models in the workspace, as a quantity in bytes such as 200Gi. After "
        "stages dataset and model, the entries that were unused for the longest time are removed, except those that the directory of a "
        "run uses or that were used in the last hour. Default: no limit.",
    )
    pods: Literal["Keep", "DeleteSucceeded"] | None = Field(
        None, description="Which finished pods are kept until ttlAfterFinished."
    )


class Rerun(Section):
    """Rerun of a finished run, from one stage on. A new id starts a new round; stages before from keep their results."""

    id: Annotated[str, text(63, r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", "a word of letters, digits, '-', '_' and '.'")] = (
        Field(
            description="Identifier of the rerun, such as a date, a ticket or a counter. An id that differs from "
            "status.rerunId requests a rerun."
        )
    )
    from_: RerunStage = Field(alias="from", description="First stage to run again.")


class ApprovalDecision(Section):
    """Manual approval or rejection of the model that waits at the gate."""

    decision: Literal["Approved", "Rejected"] = Field(description="Approved or Rejected.")
    of: Annotated[str, text(128)] = Field(description="Subject of the decision, which is the value of status.gate.subject.")
    by: Annotated[str, text(256)] = Field(description="Name of the person who decided.")
    note: Annotated[str, text(1024)] | None = Field(None, description="Reason for the decision.")
