"""``status``: the observed state of a run, written by the operator only.

The bounds keep the object small: :mod:`finetune_operator.core.trim` holds the whole object under 64 KiB.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from finetune_contract.addresses import PrivateAddresses
from finetune_contract.hosts import HOST_USES
from finetune_contract.result import SAMPLE_ROWS

from .section import OneOf, Section, text
from .stages import NAMES, STAGES

MESSAGE_LIMIT = 1024
"""Largest number of characters of a message; longer messages are truncated."""
Text = Annotated[str, Field(max_length=MESSAGE_LIMIT)]
Word = Annotated[str, Field(max_length=128)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Digest = Annotated[str, Field(max_length=64)]
Metrics = Annotated[dict[Annotated[str, Field(max_length=128)], float], Field(max_length=256)]
Free = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]

PHASES: tuple[str, ...] = (
    "Pending", "Suspended", "Queued", "Preparing", *(stage.phase for stage in STAGES if stage.phase),
    "Succeeded", "Failed", "Rejected",
)  # fmt: skip
CONDITIONS: tuple[str, ...] = (
    "Succeeded", "Finished", "Reconciling", "Stalled", "Suspended", "Queued",
    *(stage.condition for stage in STAGES if stage.condition), "RerunRejected",
)  # fmt: skip
StageName = Annotated[str, OneOf(NAMES)]
StageState = Literal["Pending", "Running", "Retrying", "Succeeded", "Failed", "Skipped"]
Phase = Annotated[str, OneOf(PHASES)]
ConditionType = Annotated[str, OneOf(CONDITIONS)]


class Whole(Section):
    """Atomic part of ``status``: its managed fields, one by one, would take nearly as much space as the part itself."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})


class Condition(Whole):
    """Condition contains details for one aspect of the current state of the run."""

    type: ConditionType = Field(description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Status of the condition: True, False or Unknown.")
    reason: Annotated[str, text(64, r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")] = Field(
        description="Reason for the condition's last transition: one of the reasons in docs/reasons.md."
    )
    message: Text = Field(description="Human-readable details about the transition.")
    last_transition_time: Time = Field(description="Last time the condition changed from one status to another.")
    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        None, description="metadata.generation that the condition was set for."
    )


class Child(Section):
    """Reference to the Job or TrainJob of an attempt."""

    kind: Word = Field(description="Kind of the object: Job, TrainJob or PersistentVolumeClaim.")
    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the object.")
    uid: Word | None = Field(None, description="UID of the object. Set as soon as the operator has observed it.")
    releasing: bool | None = Field(
        None,
        description="Whether the stage has ended and the operator deletes the object, because a container of its pods "
        "is still running.",
    )


class StageEntry(Whole):
    """State of one stage."""

    name: StageName = Field(description="Name of the stage.")
    state: StageState = Field(description="State of the stage.")
    attempt: Annotated[int, Field(ge=0)] | None = Field(None, description="Number of the current attempt in this round.")
    round: Annotated[int, Field(ge=1)] | None = Field(None, description="Round that produced the result of the stage.")
    started_at: Time | None = Field(None, description="Time at which the first attempt of the round started.")
    pods_started_at: Time | None = Field(
        None, description="Time at which the first container of the current attempt started, until its GPU time is in usage."
    )
    finished_at: Time | None = Field(None, description="Time at which the stage ended.")
    retry_at: Time | None = Field(None, description="Time at which the next attempt starts.")
    child: Child | None = Field(None, description="Job or TrainJob of the current attempt.")
    inputs_digest: Digest | None = Field(None, description="SHA-256 of everything that the result depends on.")
    output_digest: Digest | None = Field(None, description="SHA-256 of the output of the stage.")
    result_digest: Digest | None = Field(
        None,
        description="SHA-256 of the file with the full result of the stage. Later stages use the file only if it has this digest.",
    )
    reused: bool | None = Field(None, description="Whether the result of an earlier stage with the same inputs was reused.")
    failures: Annotated[dict[str, int], Field(max_length=16)] | None = Field(
        None, description="Number of failed attempts in this round, by cause."
    )
    crash: Annotated[str, Field(max_length=256)] | None = Field(
        None,
        description="Exception, file, line and inputs of the last crash of this round. The same crash is not retried.",
    )
    reason: Word | None = Field(None, description="Reason for the state: one of the reasons in docs/reasons.md.")
    message: Text | None = Field(None, description="Human-readable details about the state.")


class ProgressStatus(Whole):
    """Progress of the running stage."""

    stage: StageName | None = Field(None, description="Name of the stage.")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="Progress in percent, 0 to 100.")
    step: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Number of optimizer steps, rows or requests that are done."
    )
    total_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Total number of optimizer steps, rows or requests."
    )
    epoch: float | None = Field(None, description="Number of passes over the training rows, as a fraction.")
    eta_seconds: Annotated[int, Field(ge=0)] | None = Field(None, description="Estimated remaining time of the stage in seconds.")
    loss: float | None = Field(None, description="Training loss in nats per token.")
    tokens_per_second: float | None = Field(None, description="Training throughput in tokens per second, over all processes.")
    last_report: Time | None = Field(None, description="Time of the last progress report.")
    note: Word | None = Field(None, description="Current activity of the stage.")


Count = Annotated[int, Field(ge=0)]
STATUS_WARNINGS_LIMIT = 16
"""Number of warnings of all stages that status keeps; the most recent ones are kept."""


class TokensPerRow(Section):
    """Number of tokens of a training row."""

    p50: Count = Field(description="Median: half of the rows have at most this many tokens.")
    p90: Count = Field(description="90 percent of the rows have at most this many tokens.")
    p99: Count = Field(description="99 percent of the rows have at most this many tokens.")
    max: Count = Field(description="Number of tokens of the longest row.")


class RowsStatus(Whole):
    """Number of rows that are used, and of rows that are left out."""

    source: Count | None = Field(None, description="Number of rows in the source of the data, before subset.")
    bad: Count | None = Field(None, description="Number of rows that are left out because they are broken or in another format.")
    rejected: Count | None = Field(
        None, description="Number of training rows that are left out because the chat template rejects them."
    )
    too_long: Count | None = Field(
        None,
        description="Number of training rows that are left out because they have more tokens than training.maxSeqLen "
        "or than the model accepts.",
    )
    nothing_to_learn: Count | None = Field(
        None, description="Number of training rows that are left out because they have no token to learn."
    )
    trained: Count | None = Field(None, description="Number of training rows.")
    tokens: Count | None = Field(None, description="Number of tokens in the training rows.")
    learned_tokens: Count | None = Field(None, description="Number of tokens in the training rows that the model learns.")
    tokens_per_row: TokensPerRow | None = Field(None, description="Number of tokens of a training row.")
    measured: Count | None = Field(None, description="Number of held-out rows that are scored.")
    not_measured: Count | None = Field(
        None, description="Number of held-out rows that are not scored, because they have no answer that can be scored."
    )


class EstimateStatus(Whole):
    """What training takes, estimated after the rows are tokenized and before training starts."""

    steps_per_epoch: Count | None = Field(None, description="Number of optimizer steps per epoch.")
    steps: Count | None = Field(None, description="Number of optimizer steps in all epochs.")
    tokens: Count | None = Field(None, description="Number of tokens to train on in all epochs.")
    memory_bytes: Count | None = Field(
        None,
        description="Memory for weights, gradients and optimizer of one training process, in bytes, without sharding. Activations "
        "and LoRA adapters are not included; for OSFT it is an upper bound.",
    )
    compute_teraflop: Count | None = Field(
        None,
        description="Floating-point operations of training in all epochs, in units of 10^12, with those of gradient checkpointing. They are "
        "estimated from the numbers of parameters and tokens. LoRA adapters, dequantization and the decomposition of OSFT are not included; for "
        "a model with experts it is an upper bound, because all experts are counted.",
    )
    gpu_time: Text | None = Field(
        None,
        description="Time that GPUs take for computeTeraflop, summed over all GPUs, if training requests GPUs. It assumes a fixed share of the "
        "peak of each GPU in bfloat16, which short rows, small batches or a slow network do not reach. The start of the pods, loading, "
        "checkpoints and evaluation are not included.",
    )


class SamplePartStatus(Section):
    """Part of a row: text, or the number of characters that are left out at this point."""

    text: Text | None = Field(None, description="Text.")
    learned: bool | None = Field(None, description="Whether the model learns the text.")
    omitted: Count | None = Field(None, description="Number of characters that are left out at this point.")


class SampleRowStatus(Section):
    """Training row as the model reads it."""

    row: Count = Field(description="Number of the row in the source of the data, from 1.")
    line: Count = Field(description="Number of the line in the source of the data, from 1; 0 if the source has no lines.")
    tokens: Count = Field(description="Number of tokens.")
    learned_tokens: Count = Field(description="Number of tokens that the model learns.")
    parts: Annotated[list[SamplePartStatus], Field(max_length=64)] = Field(description="Parts of the row, in order.")


class Warning(Section):  # noqa: A001 - the term of Kubernetes
    """Input that a successful stage could not use or had to change."""

    stage: StageName = Field(description="Name of the stage.")
    message: Annotated[str, Field(max_length=256)] = Field(description="Human-readable description.")


class MetricsStatus(Whole):
    """Metrics by name; metrics of evaluations are named <task>.<metric>."""

    training: Metrics | None = Field(None, description="Metrics of training, such as final loss, tokens and seconds.")
    evaluation: Metrics | None = Field(None, description="Metrics of the fine-tuned model.")
    baseline: Metrics | None = Field(None, description="Metrics of the base model.")
    higher_is_better: Annotated[dict[Annotated[str, Field(max_length=128)], bool], Field(max_length=256)] | None = Field(
        None, description="Whether a higher value is better, for each metric whose task defines it."
    )


class HistoryPoint(Section):
    """Point of the loss curve."""

    step: Annotated[int, Field(ge=0)] = Field(description="Optimizer step.")
    loss: float = Field(description="Training loss in nats per token.")


class FailureStatus(Whole):
    """Why the run failed, and what to do."""

    stage: StageName | None = Field(None, description="Name of the stage that failed.")
    reason: Word = Field(description="Reason for the failure: one of the reasons in docs/reasons.md.")
    message: Text | None = Field(None, description="Human-readable details about the failure.")
    exit_code: int | None = Field(None, description="Exit code of the process that ended the stage.")
    hint: Text | None = Field(None, description="What to change, with the names of the fields.")
    log_tail: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="Last lines of the log of the stage, without secrets."
    )
    command: Text | None = Field(None, description="Command that prints the whole log.")


class RequirementVerdict(Section):
    """Outcome of one requirement of the gate."""

    metric: Word = Field(description="Name of the metric.")
    passed: bool = Field(description="Whether the requirement is met.")
    value: float | None = Field(None, description="Measured value.")
    bound: float | None = Field(None, description="Required bound.")
    margin: float | None = Field(
        None, description="Distance of the value from the bound; negative if the requirement is not met."
    )
    message: Text | None = Field(None, description="Human-readable outcome.")


class GateStatus(Whole):
    """Outcome of the gate."""

    passed: bool | None = Field(None, description="Whether all requirements are met.")
    subject: Word | None = Field(None, description="Identifier of the model to set in spec.approval.of.")
    requirements: Annotated[list[RequirementVerdict], Field(max_length=32)] | None = Field(
        None, description="Outcome of each requirement."
    )


class ApprovalStatus(Whole):
    """Manual approval or rejection of the model."""

    decision: Word | None = Field(None, description="Approved or Rejected.")
    by: Annotated[str, Field(max_length=256)] | None = Field(None, description="Name of the person who decided.")
    at: Time | None = Field(None, description="Time of the decision.")
    note: Text | None = Field(None, description="Reason for the decision.")


class ModelStatus(Whole):
    """The fine-tuned model."""

    uri: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="URI from which a model server can load the model."
    )
    digest: Digest | None = Field(None, description="SHA-256 of the files of the model.")
    adapter_uri: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="URI of the LoRA adapter, which is also merged into the model."
    )
    base_digest: Digest | None = Field(None, description="SHA-256 of the files of the base model.")
    parameters: Annotated[int, Field(ge=0)] | None = Field(None, description="Number of parameters.")


class EngineStatus(Whole):
    """The training engine that was used."""

    name: Word | None = Field(None, description="Name of the engine: portable or training-hub.")
    reason: Annotated[str, Field(max_length=512)] | None = Field(None, description="Why this engine was chosen.")
    versions: (
        Annotated[dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=64)]], Field(max_length=16)] | None
    ) = Field(None, description="Versions of the packages of the engine.")


class RegistryStatus(Whole):
    """Entry in the model registry."""

    kind: Word | None = Field(None, description="Type of the registry: ModelRegistry or MLflow.")
    name: Word | None = Field(None, description="Name of the registered model.")
    version: Word | None = Field(None, description="Registered version.")
    registry_version: Word | None = Field(None, description="Number or ID that the registry gave the version.")
    run_id: Word | None = Field(None, description="ID of the run in the registry, if the registry has runs.")
    url: Annotated[str, Field(max_length=2048)] | None = Field(None, description="URL of the entry.")


class UsageStatus(Whole):
    """Resources that the run used."""

    gpu_seconds: float | None = Field(
        None,
        description="GPUs times seconds of all containers with GPUs (training, evaluation and baseline), in all "
        "attempts and rounds. A running attempt is added when it ends.",
    )
    queued_seconds: float | None = Field(None, description="Time in a queue, in seconds.")
    wall_seconds: float | None = Field(
        None, description="Time from start to end in seconds, without the time in which the run was suspended."
    )


class Adaptation(Section):
    """Default that the cluster or machine cannot honor, and the value that is used instead."""

    field: Annotated[str, Field(max_length=128)] = Field(description="Name of the field.")
    preset: Annotated[str, Field(max_length=256)] | None = Field(None, description="Default value.")
    value: Annotated[str, Field(max_length=256)] | None = Field(None, description="Value that is used instead.")
    reason: Annotated[str, Field(max_length=256)] = Field(description="Why the default cannot be honored.")


PodMetadata = Annotated[dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=512)]], Field(max_length=16)]
"""Labels or annotations of pods."""


class ResolvedStatus(Whole):
    """Effective values of the run, fixed when it started."""

    spec: Free = Field(description="Effective spec: all sections with all values.")
    origins: Free = Field(
        description="Origin of each effective value: a preset, the namespace, the operator's configuration, or "
        "derived from other fields."
    )
    adapted: Annotated[list[Adaptation], Field(max_length=32)] | None = Field(
        None, description="Defaults that the cluster or machine cannot honor, with the values that are used instead."
    )
    operator_version: Word | None = Field(None, description="Version of the operator that resolved the values.")
    contract_version: int | None = Field(None, description="Version of the stage contract.")
    images: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(
        None, description="Image of each stage.", max_length=16
    )
    entry_digest: Digest | None = Field(None, description="SHA-256 of the training bundle.")
    documents: dict[str, Digest] | None = Field(
        None, description="SHA-256 of the input document of each stage of the round.", max_length=16
    )
    engine_check: bool | None = Field(
        None, description="Whether the training image is checked before a GPU is requested, from the operator's configuration."
    )
    isolation: Literal["mounts", "digests"] | None = Field(
        None,
        description="How the gate is protected from programs of training. mounts: they can write to their own folder only. digests: "
        "the evaluation uses no file that they could write. Default: no protection, in local mode.",
    )
    task_code: bool | None = Field(
        None, description="Whether functions in task files may run, from the operator's configuration. Default: true."
    )
    volume_uri: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="URI of the workspace claim, as it is registered."
    )
    fs_group: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = Field(
        None, description="Supplemental group that owns the workspace volume."
    )
    environment: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = Field(
        None, description="Environment variables of all stages, from the operator's configuration."
    )
    allowed_hosts: dict[str, Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=16)]] | None = Field(
        None,
        description="Hosts that the stages may contact, by use, from the operator's configuration.",
        max_length=len(HOST_USES),
    )
    private_addresses: PrivateAddresses | None = Field(
        None,
        description="Private addresses that the stages may connect to, from the operator's configuration: all, or those of hosts in allowedHosts."
        " Default: no address is forbidden, in local mode.",
    )
    download_limits: dict[str, Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="Largest size of what a stage downloads, by stage, from the operator's configuration. Default: no limit, in local mode."
        " In bytes.",
        max_length=2,
    )
    pod_labels: PodMetadata | None = Field(
        None, description="Labels of the pods of all stages, from the operator's configuration."
    )
    pod_annotations: PodMetadata | None = Field(
        None, description="Annotations of the pods of all stages, from the operator's configuration."
    )


class SummaryStatus(Whole):
    """Strings for the printer columns."""

    progress: Word | None = Field(None, description="Progress of the running stage in percent.")
    rows: Word | None = Field(None, description="Number of training rows, and of rows that are left out.")
    loss: Word | None = Field(None, description="Last training loss in nats per token.")
    score: Word | None = Field(
        None,
        description="First metric of the gate; without a gate holdout.bits_per_byte, or else the first metric of the evaluation.",
    )
    model: Word | None = Field(
        None, description="Name and version of the registered model; before registration, name of the base model."
    )
    algorithm: Word | None = Field(None, description="Training algorithm.")
    eta: Word | None = Field(None, description="Estimated remaining time of the running stage.")
    queue: Word | None = Field(None, description="Queue, and position in it.")
    message: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Current activity, or why the run waits or failed."
    )


UNOBSERVED: dict[str, Any] = {"observedGeneration": -1}
"""Default of ``status``: a generation that no run has, so that kstatus does not consider a run current before the operator has observed it."""


class FineTuneRunStatus(Section):
    """Observed state of the run. Written by the operator only."""

    observed_generation: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="metadata.generation that the status was set for; -1 until the operator has observed the run."
    )
    phase: Phase | None = Field(
        None,
        description="Summary of the state for people, derived from the conditions. Programs must read the conditions instead.",
    )
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra={
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    })] | None = Field(None, description="Conditions of the run. Wait for Finished or Succeeded.")  # fmt: skip
    started_at: Time | None = Field(None, description="Time at which the effective values were resolved and the run started.")
    finished_at: Time | None = Field(None, description="Time at which the run ended.")
    round: Annotated[int, Field(ge=1)] | None = Field(None, description="Number of the round: 1, plus 1 for each rerun.")
    rerun_id: Word | None = Field(None, description="spec.rerun.id of the current round.")
    stages: Annotated[list[StageEntry], Field(max_length=16, json_schema_extra={
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
    })] | None = Field(None, description="State of each stage, in order.")  # fmt: skip
    progress: ProgressStatus | None = Field(None, description="Progress of the running stage.")
    rows: RowsStatus | None = Field(None, description="Number of rows that are used, and of rows that are left out.")
    estimate: EstimateStatus | None = Field(
        None, description="What training takes, estimated after the rows are tokenized and before training starts."
    )
    sample: Annotated[list[SampleRowStatus], Field(max_length=SAMPLE_ROWS)] | None = Field(
        None,
        description="First training rows as the model reads them: rendered with the chat template, with the parts that are learned. At "
        "most 2 KiB; tokens/sample.json in the directory of the run has more of their text.",
    )
    warnings: Annotated[list[Warning], Field(max_length=STATUS_WARNINGS_LIMIT)] | None = Field(
        None, description="Inputs that successful stages could not use or had to change; the 16 most recent."
    )
    metrics: MetricsStatus | None = Field(None, description="Metrics of training and evaluation.")
    history: Annotated[list[HistoryPoint], Field(max_length=64)] | None = Field(
        None, description="Loss curve, reduced to at most 64 points."
    )
    failure: FailureStatus | None = Field(None, description="Why the run failed, and what to do.")
    gate: GateStatus | None = Field(None, description="Outcome of the gate.")
    approval: ApprovalStatus | None = Field(None, description="Manual approval or rejection of the model.")
    engine: EngineStatus | None = Field(None, description="The training engine that was used.")
    model: ModelStatus | None = Field(None, description="The fine-tuned model.")
    registry: RegistryStatus | None = Field(None, description="Entry in the model registry.")
    usage: UsageStatus | None = Field(None, description="Resources that the run used.")
    resolved: ResolvedStatus | None = Field(None, description="Effective values of the run, fixed when it started.")
    summary: SummaryStatus | None = Field(None, description="Strings for the printer columns.")
    cleaned_at: Time | None = Field(None, description="Time at which finished Jobs and TrainJobs were removed.")
