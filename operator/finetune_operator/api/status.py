"""``status``: what the operator observed, for people and for machines. Written by the operator only.

The bounds keep the object small: :mod:`finetune_operator.core.trim` holds the whole object under 64 KiB.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from .section import Section, text

MESSAGE_LIMIT = 1024
"""Characters of a message; longer ones are cut."""
Text = Annotated[str, Field(max_length=MESSAGE_LIMIT)]
Word = Annotated[str, Field(max_length=128)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Digest = Annotated[str, Field(max_length=64)]
Metrics = Annotated[dict[Annotated[str, Field(max_length=128)], float], Field(max_length=256)]
Free = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]

StageName = Literal[
    "workspace", "dataset", "model", "registry-check", "tokenization", "training", "baseline", "evaluation", "gate", "approval",
    "registration",
]  # fmt: skip
StageState = Literal["Pending", "Running", "Retrying", "Succeeded", "Failed", "Skipped"]
Phase = Literal[
    "Pending", "Suspended", "Queued", "Preparing", "Training", "Evaluating", "AwaitingApproval", "Registering",
    "Succeeded", "Failed", "Rejected",
]  # fmt: skip
ConditionType = Literal[
    "Succeeded", "Finished", "Reconciling", "Stalled", "Suspended", "Queued", "WorkspaceReady", "DatasetReady", "ModelReady",
    "Trained", "Evaluated", "GatePassed", "Approved", "Registered", "RerunRejected",
]  # fmt: skip


class Whole(Section):
    """A part that has one owner: what it says in server-side apply's records would be nearly as long as the part itself."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})


class Condition(Whole):
    """A standard Kubernetes condition."""

    type: ConditionType = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, text(64, r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")] = Field(
        description="Why, in one word of the documented list."
    )
    message: Text = Field(description="Why, in a sentence.")
    last_transition_time: Time = Field(description="When status last changed.")
    observed_generation: Annotated[int, Field(ge=0)] | None = Field(None, description="The generation of spec that it is about.")


class Child(Section):
    """The Job or TrainJob of an attempt."""

    kind: Word = Field(description="Job, TrainJob or PersistentVolumeClaim.")
    name: Annotated[str, Field(max_length=253)] = Field(description="Its name.")
    uid: Word | None = Field(None, description="Its uid, once it was seen.")
    releasing: bool | None = Field(
        None, description="The stage has ended and the child is being removed, because a container of its pods still runs."
    )


class StageEntry(Whole):
    """Where one stage stands."""

    name: StageName = Field(description="The stage.")
    state: StageState = Field(description="Where it stands.")
    attempt: Annotated[int, Field(ge=0)] | None = Field(None, description="Number of the attempt in this round.")
    round: Annotated[int, Field(ge=1)] | None = Field(None, description="The round that its result is from.")
    started_at: Time | None = Field(None, description="When the first attempt of the round began.")
    pods_started_at: Time | None = Field(
        None, description="When the first container of the current attempt started, while its GPU time is not in usage yet."
    )
    finished_at: Time | None = Field(None, description="When it ended.")
    retry_at: Time | None = Field(None, description="When the next attempt begins.")
    child: Child | None = Field(None, description="The child of the current attempt.")
    inputs_digest: Digest | None = Field(None, description="SHA-256 of everything that the result depends on.")
    output_digest: Digest | None = Field(None, description="SHA-256 of what the stage made.")
    reused: bool | None = Field(None, description="Nothing was computed: an earlier result for the same inputs was found.")
    failures: Annotated[dict[str, int], Field(max_length=16)] | None = Field(
        None, description="Failed attempts of this round, by cause."
    )
    crash: Annotated[str, Field(max_length=256)] | None = Field(
        None,
        description="Exception, file and line of the last crash of this round, and the inputs that it came with."
        " The same crash again is not retried.",
    )
    reason: Word | None = Field(None, description="Why it is in this state, in one word.")
    message: Text | None = Field(None, description="Why, in a sentence.")


class ProgressStatus(Whole):
    """How far the stage is that people wait for."""

    stage: StageName | None = Field(None, description="The stage.")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="0 to 100.")
    step: Annotated[int, Field(ge=0)] | None = Field(None, description="Optimizer steps, rows or requests done.")
    total_steps: Annotated[int, Field(ge=0)] | None = Field(None, description="Of how many.")
    epoch: float | None = Field(None, description="Times that the data was seen.")
    eta_seconds: Annotated[int, Field(ge=0)] | None = Field(None, description="What is left of the stage, in seconds.")
    loss: float | None = Field(None, description="Training loss in nats per token.")
    tokens_per_second: float | None = Field(None, description="Tokens trained per second, over all processes.")
    last_report: Time | None = Field(None, description="When the stage last said so.")
    note: Word | None = Field(None, description="What it is doing.")


Count = Annotated[int, Field(ge=0)]
STATUS_WARNINGS_LIMIT = 16
"""Warnings of all stages together that status keeps, the newest."""


class RowsStatus(Whole):
    """How many rows are used, and how many are left out."""

    source: Count | None = Field(None, description="Rows in the source of the data, before subset.")
    bad: Count | None = Field(None, description="Rows that are left out because they are no chat conversation.")
    rejected: Count | None = Field(None, description="Training rows that are left out because the chat template rejects them.")
    too_long: Count | None = Field(
        None,
        description="Training rows that are left out because they have more tokens than training.maxSeqLen or the model takes.",
    )
    nothing_to_learn: Count | None = Field(
        None, description="Training rows that are left out because no token of them is learned."
    )
    trained: Count | None = Field(None, description="Rows to train on.")
    tokens: Count | None = Field(None, description="Tokens of the rows to train on.")
    learned_tokens: Count | None = Field(None, description="Tokens that the model learns, among these.")
    measured: Count | None = Field(None, description="Held-out rows with an answer that is scored.")
    not_measured: Count | None = Field(None, description="Held-out rows without an answer that can be scored.")


class Warning(Section):  # noqa: A001 - the term of Kubernetes
    """What a stage that succeeded could not use or had to change."""

    stage: StageName = Field(description="The stage.")
    message: Annotated[str, Field(max_length=256)] = Field(description="What it is, in a sentence.")


class MetricsStatus(Whole):
    """Numbers, by safe keys: <task>.<metric> in the evaluations."""

    training: Metrics | None = Field(None, description="Of training: final loss, tokens, seconds.")
    evaluation: Metrics | None = Field(None, description="Of the fine-tuned model.")
    baseline: Metrics | None = Field(None, description="Of the base model.")
    higher_is_better: Annotated[dict[Annotated[str, Field(max_length=128)], bool], Field(max_length=256)] | None = Field(
        None, description="The direction of each metric, where its task states one."
    )


class HistoryPoint(Section):
    """A point of the loss curve."""

    step: Annotated[int, Field(ge=0)] = Field(description="Optimizer step.")
    loss: float = Field(description="Nats per token.")


class FailureStatus(Whole):
    """Why the run failed, and what to do."""

    stage: StageName | None = Field(None, description="The stage that failed.")
    reason: Word = Field(description="Why, in one word of the documented list.")
    message: Text | None = Field(None, description="Why, in a sentence.")
    exit_code: int | None = Field(None, description="Exit code of the process that ended the stage.")
    hint: Text | None = Field(None, description="What to change, by field.")
    log_tail: Annotated[str, Field(max_length=2048)] | None = Field(None, description="Last lines of its log, secrets removed.")
    command: Text | None = Field(None, description="The command that shows the whole log.")


class RequirementVerdict(Section):
    """One requirement of the gate, measured."""

    metric: Word = Field(description="The metric.")
    passed: bool = Field(description="The verdict.")
    value: float | None = Field(None, description="What was measured.")
    bound: float | None = Field(None, description="What was required.")
    margin: float | None = Field(None, description="How far from the bound; negative fails.")
    message: Text | None = Field(None, description="In a sentence.")


class GateStatus(Whole):
    """What the gate decided."""

    passed: bool | None = Field(None, description="The verdict.")
    subject: Word | None = Field(None, description="What an approval must name in spec.approval.of.")
    requirements: Annotated[list[RequirementVerdict], Field(max_length=32)] | None = Field(None, description="One by one.")


class ApprovalStatus(Whole):
    """Who decided what."""

    decision: Word | None = Field(None, description="Approved or Rejected.")
    by: Annotated[str, Field(max_length=256)] | None = Field(None, description="Who.")
    at: Time | None = Field(None, description="When.")
    note: Text | None = Field(None, description="Why.")


class ModelStatus(Whole):
    """The result."""

    uri: Annotated[str, Field(max_length=2048)] | None = Field(None, description="Where a server can load it from.")
    digest: Digest | None = Field(None, description="SHA-256 over its files.")
    adapter_uri: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="Where LoRA's adapter lies, which is merged into the model already."
    )
    base_digest: Digest | None = Field(None, description="SHA-256 over the base model's files.")
    parameters: Annotated[int, Field(ge=0)] | None = Field(None, description="Number of parameters.")


class RegistryStatus(Whole):
    """The entry in the registry."""

    kind: Word | None = Field(None, description="ModelRegistry or MLflow.")
    name: Word | None = Field(None, description="Name of the registered model.")
    version: Word | None = Field(None, description="Version as it was registered.")
    registry_version: Word | None = Field(None, description="The registry's own number or id of the version.")
    run_id: Word | None = Field(None, description="The registry's run, where it has runs.")
    url: Annotated[str, Field(max_length=2048)] | None = Field(None, description="Where to look at it.")


class UsageStatus(Whole):
    """What the run cost."""

    gpu_seconds: float | None = Field(
        None,
        description="GPUs times seconds, from start to end of every container with GPUs: of training, evaluation and baseline, in all"
        " attempts and rounds. A running attempt is added when it ends.",
    )
    queued_seconds: float | None = Field(None, description="Time in a queue.")
    wall_seconds: float | None = Field(None, description="From start to end, suspended time not counted.")


class Adaptation(Section):
    """A default that this place cannot honour, and what is done instead."""

    field: Annotated[str, Field(max_length=128)] = Field(description="The field.")
    preset: Annotated[str, Field(max_length=256)] | None = Field(None, description="What the preset says.")
    value: Annotated[str, Field(max_length=256)] | None = Field(None, description="What is done.")
    reason: Annotated[str, Field(max_length=256)] = Field(description="Why.")


PodMetadata = Annotated[dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=512)]], Field(max_length=16)]
"""Labels or annotations of pods."""


class ResolvedStatus(Whole):
    """The effective values of the run, fixed when it started."""

    spec: Free = Field(description="Every section with every value, as the stages get it.")
    origins: Free = Field(
        description="Which fields have their value from a preset, the namespace, the operator, or follow from others."
    )
    adapted: Annotated[list[Adaptation], Field(max_length=32)] | None = Field(
        None, description="Defaults that this place cannot honour."
    )
    operator_version: Word | None = Field(None, description="Release of the operator that resolved it.")
    contract_version: int | None = Field(None, description="Version of the stage contract.")
    images: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(
        None, description="Image of each stage.", max_length=16
    )
    entry_digest: Digest | None = Field(None, description="SHA-256 of the training program.")
    volume_uri: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="URI of the workspace's claim, as the registry names it."
    )
    fs_group: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = Field(
        None, description="Group that the workspace's volume is given to."
    )
    environment: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = Field(
        None, description="Environment variables that the operator's configuration gives to every stage."
    )
    pod_labels: PodMetadata | None = Field(
        None, description="Labels that the operator's configuration gives to the pods of every stage."
    )
    pod_annotations: PodMetadata | None = Field(
        None, description="Annotations that the operator's configuration gives to the pods of every stage."
    )


class SummaryStatus(Whole):
    """Strings for the printer columns."""

    progress: Word | None = Field(None, description="Percent of the running stage.")
    rows: Word | None = Field(None, description="Rows to train on, and how many are left out.")
    loss: Word | None = Field(None, description="Last training loss.")
    score: Word | None = Field(None, description="First metric of the gate, else holdout.bits_per_byte, else the first task's.")
    model: Word | None = Field(
        None, description="Name and version of the registered model; until it is registered, name of the base model."
    )
    algorithm: Word | None = Field(None, description="sft, osft or lora.")
    eta: Word | None = Field(None, description="What is left of the running stage.")
    queue: Word | None = Field(None, description="Queue and position.")
    message: Annotated[str, Field(max_length=256)] | None = Field(None, description="What is going on.")


UNOBSERVED: dict[str, Any] = {"observedGeneration": -1}
"""Default of ``status``: no generation, so that kstatus does not take a run as reconciled before the operator has seen it."""


class FineTuneRunStatus(Section):
    """What was observed. Everything here is written by the operator only."""

    observed_generation: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="The generation of spec that this is about; -1 until the operator has seen the run."
    )
    phase: Phase | None = Field(None, description="One word for people, derived from the conditions: never branch on it.")
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra={
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    })] | None = Field(None, description="Standard conditions; Succeeded is the one to wait for.")  # fmt: skip
    started_at: Time | None = Field(None, description="When the run was resolved and began.")
    finished_at: Time | None = Field(None, description="When it ended.")
    round: Annotated[int, Field(ge=1)] | None = Field(None, description="1, and one more for each rerun.")
    rerun_id: Word | None = Field(None, description="The rerun that opened this round.")
    stages: Annotated[list[StageEntry], Field(max_length=16, json_schema_extra={
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
    })] | None = Field(None, description="The stages, in order.")  # fmt: skip
    progress: ProgressStatus | None = Field(None, description="How far the running stage is.")
    rows: RowsStatus | None = Field(None, description="How many rows are used, and how many are left out.")
    warnings: Annotated[list[Warning], Field(max_length=STATUS_WARNINGS_LIMIT)] | None = Field(
        None, description="What stages that succeeded could not use or had to change."
    )
    metrics: MetricsStatus | None = Field(None, description="Numbers of training and evaluation.")
    history: Annotated[list[HistoryPoint], Field(max_length=64)] | None = Field(None, description="The loss curve, thinned.")
    failure: FailureStatus | None = Field(None, description="Why the run failed.")
    gate: GateStatus | None = Field(None, description="What the gate decided.")
    approval: ApprovalStatus | None = Field(None, description="Who decided what.")
    model: ModelStatus | None = Field(None, description="The result.")
    registry: RegistryStatus | None = Field(None, description="The entry in the registry.")
    usage: UsageStatus | None = Field(None, description="What the run cost.")
    resolved: ResolvedStatus | None = Field(None, description="The effective values.")
    summary: SummaryStatus | None = Field(None, description="Strings for the printer columns.")
    cleaned_at: Time | None = Field(None, description="When finished children were removed.")
