"""Input documents of the stage programs, one frozen dataclass per stage.

``inputs`` is equal for two runs with the same spec, so its digest, with those of the stage's input files, identifies work that was done
before. Paths are derived from the run's folder (:mod:`.workspace`); secrets are environment variables and never in a document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from . import CONTRACT_VERSION
from .codec import DocumentError, decode
from .row_formats import RowFields, RowFormat
from .workspace import RunLayout, run_root

CONFIG_VARIABLE = "FINETUNE_CONFIG"
"""Environment variable with the path of the stage's document."""
WORKSPACE_VARIABLE = "FINETUNE_WORKSPACE"
"""Environment variable with the mount path of the workspace volume."""
RESULT_VARIABLE = "FINETUNE_RESULT"
"""Environment variable with the path for the short result (the container's termination message)."""
ATTEMPT_VARIABLE = "FINETUNE_ATTEMPT"
"""Environment variable with ``<round>.<attempt>``."""
INPUTS_DIGEST_VARIABLE = "FINETUNE_INPUTS_DIGEST"
"""Environment variable with the digest of everything that the stage's result depends on."""
KEEP_METRICS_VARIABLE = "FINETUNE_KEEP_METRICS"
"""Environment variable with the gate's metrics, separated by commas, which the short result drops last."""
REGISTRY_TOKEN_VARIABLE = "REGISTRY_TOKEN"  # noqa: S105 - a name, no secret
"""Environment variable with the registry's bearer token; optional."""
REGISTRY_HOST_VARIABLE = "REGISTRY_HOST"
"""Environment variable with the only host that receives the registry's token; optional."""
GATE_VARIABLE = "FINETUNE_GATE"
"""Environment variable of stage *registration* with the gate's verdict, ``Passed`` or ``Rejected``; not set without a gate."""
REGISTRY_CA_VARIABLE = "FINETUNE_REGISTRY_CA"
"""Environment variable with the path of the registry's CA bundle (PEM); optional."""
CLAIMS_VARIABLE = "FINETUNE_CLAIMS"
"""Environment variable of stages *dataset* and *model* with the directory below which the claims of ``pvc://`` URIs are mounted, each under its name."""
SOURCE_CA_VARIABLE = "FINETUNE_SOURCE_CA"
"""Environment variable of stages *dataset* and *model* with the path of the CA bundle (PEM) of the server that they read; optional."""
HTTP_AUTHORIZATION_VARIABLE = "HTTP_AUTHORIZATION"
"""Environment variable of stage *dataset* with the value of the Authorization header for http(s):// URIs; optional."""
PULL_SECRET_VARIABLE = "FINETUNE_PULL_SECRET"  # noqa: S105 - a name, no secret
"""Environment variable of stage *model* with a ``config.json`` of Docker, the credentials for the registry of an ``oci://`` model; optional."""
PIPELINES_PULL_SECRET_VARIABLE = "OCI_PULL_SECRET_MODEL_DOWNLOAD"  # noqa: S105 - a name, no secret
"""The same, from the key that the OpenShift AI pipelines read."""
READS_VARIABLE = "FINETUNE_READS"
"""Environment variable with the identity of the results that the stage reads: JSON, a :class:`ReadResult` by stage.

It is not part of ``inputs``: the digest of a stage's inputs covers the digests of the outputs that it reads. Without it, as when a program
is run by hand, results and models in the workspace are used as they are.
"""
TASK_CODE_VARIABLE = "FINETUNE_TASK_CODE"
"""Environment variable of stages *evaluation* and *baseline*: with ``0``, task files with functions are rejected."""
FIRST_VARIABLE = "FINETUNE_FIRST"
"""Environment variable of an attempt that must not use a result of this round that it finds: another program may have written it."""
AGAIN_VARIABLE = "FINETUNE_AGAIN"
"""Environment variable that is set for a rerun without reuse: results of other rounds and runs are ignored."""
IMAGE_VARIABLE = "FINETUNE_IMAGE"
"""Environment variable with the name of the container's image, for messages; optional."""
DOCUMENT_DIGEST_VARIABLE = "FINETUNE_DOCUMENT_DIGEST"
"""Environment variable with the SHA-256 of the stage's document. A program that gets it uses no other document."""
GPUS_VARIABLE = "FINETUNE_GPUS"
"""Environment variable with the number of GPUs that the pod requests; 0 means that the program computes on CPUs.

It is not part of ``inputs``: other GPUs give the same model except for rounding, so an earlier result is reused whatever hardware made it.
"""
DOWNLOAD_LIMIT_VARIABLE = "FINETUNE_DOWNLOAD_LIMIT"
"""Environment variable with the largest size in bytes of the data or the model that the stage downloads."""
CACHE_LIMIT_VARIABLE = "FINETUNE_CACHE_LIMIT"
"""Environment variable of stages *dataset* and *model* with the largest size of the caches in bytes; optional."""
SECRETS_VARIABLE = "FINETUNE_SECRETS"
"""Environment variable with the names of the variables whose values the programs remove from logs and messages, separated by commas."""
PROCESSES_VARIABLE = "FINETUNE_PROCESSES"
"""Environment variable of stage *training* with the number of training processes in all pods together, which is not part of ``inputs`` either."""

Scalar = str | int | float | bool


@dataclass(frozen=True)
class RunInfo:
    """The run that a document belongs to."""

    name: str
    namespace: str
    uid: str
    experiment: str | None = None

    @property
    def layout(self) -> RunLayout:
        """The run's folder in the workspace."""
        return RunLayout(run_root(self.name, self.uid))


@dataclass(frozen=True)
class StageDocument:
    """The envelope that every stage program reads from ``FINETUNE_CONFIG``.

    Attributes:
        explicit: fields of the spec (``training.liger``) that a person set. An engine rejects such a value if it cannot honor it, and
            replaces a default. They are not part of ``inputs``: the same value has the same result, whoever set it.
    """

    contract_version: int
    stage: str
    run: RunInfo
    inputs: dict[str, Any]
    explicit: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, data: Any) -> StageDocument:
        """Return the document from JSON values.

        Raises:
            DocumentError: The form is wrong, or the contract's version is unknown.
        """
        version = data.get("contractVersion") if isinstance(data, dict) else None
        if version != CONTRACT_VERSION:
            raise DocumentError(
                f"contractVersion: the document has {version!r}, and this program supports {CONTRACT_VERSION}; use matching releases"
            )
        return decode(cls, data)


@dataclass(frozen=True)
class ReadResult:
    """Identity of the result of an earlier stage, as the control plane recorded it from the termination message of that stage.

    Attributes:
        outputs: digest of the outputs: of the model for *training* and *model*.
        file: SHA-256 of the file with the full result.
    """

    outputs: str | None = None
    file: str | None = None


def parse_reads(text: str | None) -> dict[str, ReadResult] | None:
    """Return the results in ``FINETUNE_READS`` by stage, ``None`` if it is not set.

    Raises:
        DocumentError: it does not have this form.
    """
    if not text:
        return None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DocumentError(f"{READS_VARIABLE}: it is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise DocumentError(f"{READS_VARIABLE}: expected an object with a result for each stage")
    return {stage: decode(ReadResult, entry, f"{READS_VARIABLE}.{stage}") for stage, entry in data.items()}


@dataclass(frozen=True)
class DatasetInputs:
    """Stage *dataset*: fetch, check, convert and split data. Defaults are those of the OpenShift AI pipelines.

    Attributes:
        format, fields: format of the rows (``auto``: the format that the rows have) and names of their columns.
        endpoint, region: of the S3 server, for ``s3://`` URIs.
    """

    uri: str
    eval_uri: str | None = None
    split: str | None = None
    revision: str | None = None
    format: Literal["auto", RowFormat] = "auto"
    fields: RowFields | None = None
    subset: int = 0
    subset_mode: Literal["random", "first"] = "random"
    train_split: float = 0.9
    split_by: Literal["random", "stratified", "grouped"] = "random"
    split_field: str | None = None
    near_duplicates: Literal["Ignore", "KeepTogether"] = "Ignore"
    bad_rows: Literal["Fail", "Drop"] = "Fail"
    bad_rows_share: float = 0.0
    seed: int = 42
    sha256: str | None = None
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class ModelInputs:
    """Stage *model*: download or copy the base model into the workspace, and check it.

    Attributes:
        endpoint, region: of the S3 server, for an ``s3://`` URI.
        requires_chat_template: whether the rows are known to have messages. Documents and tokens need no chat template.
    """

    uri: str
    revision: str | None = None
    trust_remote_code: bool = False
    endpoint: str | None = None
    region: str | None = None
    requires_chat_template: bool = True


@dataclass(frozen=True)
class TokenizationInputs:
    """Stage *tokenization*: chat rows to tokens and labels with the base model's tokenizer and chat template, before a GPU is allocated.

    Attributes:
        max_seq_len: in tokens; longer training rows are left out and counted.
        unmask: learn every message except the system's, not only the assistant's.
        holdout: render the held-out rows for the evaluation, too.
        tasks, task_files: tasks of the evaluation; those that are files of chat rows are rendered here.
        bad_rows, bad_rows_share: whether rows that the template rejects fail the stage; the largest share of the training rows that
            may be left out, for whatever reason.
        requires_holdout: at least one held-out row must be scored: the gate reads a metric of them, or the evaluation has no task.
        sample: report the first training rows in the result, which everyone may read who may read the pod.
    """

    max_seq_len: int
    unmask: bool = False
    holdout: bool = True
    tasks: tuple[str, ...] = ()
    task_files: bool = False
    bad_rows: Literal["Fail", "Drop"] = "Fail"
    bad_rows_share: float = 0.1
    requires_holdout: bool = False
    trust_remote_code: bool = False
    sample: bool = True


@dataclass(frozen=True)
class OsftInputs:
    """OSFT (arXiv 2504.07097): train only the lowest singular directions of each weight."""

    unfreeze_rank_ratio: float = 0.25
    target_patterns: tuple[str, ...] = ()
    trainable: Literal["all", "targets"] = "all"
    memory_efficient_init: bool = True


@dataclass(frozen=True)
class LoraInputs:
    """LoRA (arXiv 2106.09685): train low-rank adapters beside frozen weights.

    ``packing`` puts several rows into one sequence, without attention between rows.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    rslora: bool = False
    dora: bool = False
    quantization: Literal["none", "4bit", "8bit"] = "none"
    packing: bool = False


@dataclass(frozen=True)
class CheckpointInputs:
    """Models to save in ``checkpoints/`` in addition to the final one."""

    per_epoch: bool = False
    keep: int | None = None


@dataclass(frozen=True)
class TrainingInputs:
    """Stage *training*. Batch sizes count rows, ``max_tokens_per_gpu`` and ``max_seq_len`` count tokens."""

    algorithm: Literal["sft", "osft", "lora"]
    engine: Literal["auto", "training-hub", "portable"]
    epochs: int
    effective_batch_size: int
    max_tokens_per_gpu: int
    max_seq_len: int
    learning_rate: float
    micro_batch_size: int | None = None
    warmup_steps: int = 0
    scheduler: str = "cosine"
    scheduler_args: dict[str, Scalar] = field(default_factory=dict)
    seed: int = 42
    unmask: bool = False
    liger: bool = False
    sharding: Literal["FULL_SHARD", "HYBRID_SHARD", "NO_SHARD"] = "NO_SHARD"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    osft: OsftInputs | None = None
    lora: LoraInputs | None = None
    checkpoints: CheckpointInputs = CheckpointInputs()


@dataclass(frozen=True)
class EngineCheckInputs:
    """Stage *engine-check*: choose the engine of a training in its image, before a GPU is requested.

    Attributes:
        training: inputs of stage *training*. Only the values that decide about the engine are those of the run, so that runs that
            differ in other values have equal inputs.
        gpus: number of GPUs that each pod of the training requests; the pod of the check has none.
        processes: number of training processes in all pods together.
        explicit: fields that a person set, of those that an engine may be unable to honor.
    """

    training: TrainingInputs
    gpus: int
    processes: int = 1
    explicit: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationInputs:
    """Stages *evaluation* (the fine-tuned model) and *baseline* (the base model): the same measurement of both."""

    subject: Literal["final", "base"]
    tasks: tuple[str, ...] = ()
    task_files: bool = False
    holdout: bool = True
    backend: Literal["hf"] = "hf"
    limit: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    fewshot: int | None = None
    system_instruction: str | None = None
    generation: dict[str, Scalar] = field(default_factory=dict)
    until: tuple[str, ...] = ()
    model_args: dict[str, Scalar] = field(default_factory=dict)
    log_samples: bool = True
    verbosity: str = "INFO"
    seed: int = 42
    trust_remote_code: bool = False


RegistryKind = Literal["ModelRegistry", "MLflow"]


@dataclass(frozen=True)
class RegistryCheckInputs:
    """Stage *registry-check*: check before training that the registry is reachable and the version is free.

    ``address`` is a URL with scheme and port; without one, ``MLflow`` means the store in the workspace.
    """

    kind: RegistryKind
    name: str
    version: str
    address: str | None = None


@dataclass(frozen=True)
class RegistrationInputs:
    """Stage *registration*: register name, version and lineage of the model.

    ``parameters`` are the run's effective values, flat, as the registry shows them; metrics and digests are read from the
    results of the earlier stages in the workspace.
    """

    kind: RegistryKind
    name: str
    version: str
    model_uri: str
    address: str | None = None
    on_existing: Literal["NewVersion", "Fail", "Update"] = "NewVersion"
    author: str | None = None
    description: str | None = None
    format: str = "pytorch"
    format_version: str = "1.0"
    alias: str | None = None
    parameters: dict[str, Scalar] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
