"""The effective values of a run as typed, frozen sections: ``status.resolved.spec`` without string keys.

The pydantic models of :mod:`finetune_operator.api` define the resource, where nearly every field may be absent. A resolved spec has every
default, so the fields here that a preset fills are never ``None``. Names in JSON come from the models, and a test compares each class with
its model. Values were validated when the run was resolved and are not validated again: a section is read in a few microseconds, only
when something asks for it, whereas validation of the whole spec takes a tenth of the time of a decision.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeVar

from finetune_contract.row_formats import RowFields, RowFormat
from finetune_operator.api import dataset, evaluation, lifecycle, model, pods, references, registry, training
from finetune_operator.api.section import Section
from finetune_operator.api.training import Algorithm

from .paths import Json

T = TypeVar("T")
Amount = str | int
"""A Kubernetes quantity."""
Number = int | float
"""A number that keeps its form in JSON, because a digest is taken of it."""


@dataclass(frozen=True)
class SecretRef:
    """A Secret; ``key`` is ``None`` where the standard keys are read."""

    name: str
    key: str | None = None


@dataclass(frozen=True)
class ConfigMapRef:
    """A ConfigMap."""

    name: str


@dataclass(frozen=True)
class CertificateRef:
    """A ConfigMap with a CA bundle."""

    name: str
    key: str = "ca.crt"


@dataclass(frozen=True)
class PullSecretRef:
    """A Secret with credentials for registries."""

    name: str


@dataclass(frozen=True)
class Resources:
    """Requests and limits of one pod."""

    cpu: Amount | None = None
    memory: Amount | None = None
    ephemeral_storage: Amount | None = None


@dataclass(frozen=True)
class Placement:
    """Where pods run, as JSON of Kubernetes."""

    node_selector: Json = field(default_factory=dict)
    tolerations: tuple[Json, ...] = ()
    affinity: Json = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    priority_class_name: str | None = None


@dataclass(frozen=True)
class BadRows:
    """Rows that cannot be used."""

    policy: Literal["Fail", "Drop"]
    share: float


@dataclass(frozen=True)
class Dataset:
    """``spec.dataset``."""

    uri: str
    format: Literal["auto", RowFormat]
    subset: int
    subset_mode: Literal["random", "first"]
    train_split: float
    split_by: Literal["random", "stratified", "grouped"]
    near_duplicates: Literal["Ignore", "KeepTogether"]
    sample_in_status: bool
    bad_rows: BadRows
    seed: int
    eval_uri: str | None = None
    split: str | None = None
    split_field: str | None = None
    revision: str | None = None
    sha256: str | None = None
    fields: RowFields | None = None
    endpoint: str | None = None
    region: str | None = None
    ca_ref: CertificateRef | None = None
    secret_ref: SecretRef | None = None


@dataclass(frozen=True)
class Model:
    """``spec.model``."""

    uri: str
    trust_remote_code: bool
    revision: str | None = None
    endpoint: str | None = None
    region: str | None = None
    ca_ref: CertificateRef | None = None
    secret_ref: SecretRef | None = None
    pull_secret_ref: PullSecretRef | None = None


@dataclass(frozen=True)
class Osft:
    """``spec.training.osft``."""

    unfreeze_rank_ratio: float
    target_patterns: tuple[str, ...]
    trainable: Literal["all", "targets"]
    memory_efficient_init: bool


@dataclass(frozen=True)
class Sft:
    """``spec.training.sft``."""

    sharding: Literal["FULL_SHARD", "HYBRID_SHARD", "NO_SHARD"]


@dataclass(frozen=True)
class Lora:
    """``spec.training.lora``."""

    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    rslora: bool
    dora: bool
    quantization: Literal["none", "4bit", "8bit"]
    packing: bool


@dataclass(frozen=True)
class Checkpoints:
    """``spec.training.checkpoints``."""

    per_epoch: bool
    keep: int | None = None


@dataclass(frozen=True)
class Training:
    """``spec.training``. Variables, volumes and mounts are JSON of Kubernetes."""

    algorithm: Algorithm
    engine: Literal["auto", "training-hub", "portable"]
    epochs: int
    effective_batch_size: int
    max_tokens_per_gpu: int
    max_seq_len: int
    learning_rate: float
    warmup_steps: int
    scheduler: str
    seed: int
    unmask: bool
    liger: bool
    gradient_checkpointing: bool
    checkpoints: Checkpoints
    runtime_ref: str
    workers: int
    gpus_per_worker: int
    enabled: bool = True
    micro_batch_size: int | None = None
    scheduler_args: Json = field(default_factory=dict)
    osft: Osft | None = None
    sft: Sft | None = None
    lora: Lora | None = None
    processes_per_worker: int | None = None
    image: str | None = None
    image_pull_secrets: tuple[Json, ...] = ()
    resources: Resources = Resources()
    env: tuple[Json, ...] = ()
    volumes: tuple[Json, ...] = ()
    volume_mounts: tuple[Json, ...] = ()
    shared_memory: Amount | None = None
    placement: Placement = Placement()

    @property
    def processes(self) -> int:
        """The number of training processes in each pod: one for each GPU, or one, unless the run sets it."""
        return self.processes_per_worker or max(1, self.gpus_per_worker)


@dataclass(frozen=True)
class Generation:
    """``spec.evaluation.generation``. Numbers are passed on as they are written."""

    temperature: Number | None = None
    top_p: Number | None = None
    top_k: int | None = None
    do_sample: bool | None = None
    max_tokens: int | None = None
    until: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """``spec.evaluation``."""

    enabled: bool
    tasks: tuple[str, ...]
    holdout: bool
    baseline: bool
    backend: Literal["hf"]
    log_samples: bool
    verbosity: str
    on_failure: Literal["Fail", "Continue"]
    task_files: ConfigMapRef | None = None
    limit: int | None = None
    batch_size: int | None = None
    fewshot: int | None = None
    system_instruction: str | None = None
    generation: Generation = Generation()
    model_args: Json = field(default_factory=dict)
    gpus: int = 0
    resources: Resources = Resources()
    secret_ref: SecretRef | None = None
    placement: Placement = Placement()


@dataclass(frozen=True)
class Requirement:
    """One entry of ``spec.gate.requirements``."""

    metric: str
    min: float | None = None
    max: float | None = None
    max_regression: float | None = None
    within_standard_error: bool = False


@dataclass(frozen=True)
class Gate:
    """``spec.gate``; without requirements where the run has no gate."""

    requirements: tuple[Requirement, ...] = ()
    on_rejected: Literal["Keep", "RegisterAsRejected"] = "Keep"


@dataclass(frozen=True)
class Registry:
    """``spec.registry``. Without a kind, the run registers nowhere."""

    port: int
    version: str
    on_existing: Literal["NewVersion", "Fail", "Update"]
    format: str
    format_version: str
    name: str
    kind: Literal["ModelRegistry", "MLflow"] | None = None
    address: str | None = None
    secret_ref: SecretRef | None = None
    ca_ref: CertificateRef | None = None
    author: str | None = None
    description: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Storage:
    """``spec.storage``: the name of a claim that exists, or the properties of one to create."""

    claim_name: str | None = None
    size: Amount | None = None
    storage_class_name: str | None = None
    access_modes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retry:
    """``spec.retry``: further attempts, by the cause of the failure."""

    transient: int = 0
    crash: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Cleanup:
    """``spec.cleanup``."""

    ttl_after_finished: str
    volume: Literal["Retain", "Delete"]
    cache_size: Amount | None = None


class ResolvedSpec:
    """``status.resolved.spec``, with each section read when it is first used. ``values`` is the same as JSON, empty before the start."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    @cached_property
    def dataset(self) -> Dataset:
        """The data."""
        return read(Dataset, self.values["dataset"])

    @cached_property
    def model(self) -> Model:
        """The base model."""
        return read(Model, self.values["model"])

    @cached_property
    def training(self) -> Training:
        """The training, without the values of the algorithms that the run does not use: those may be incomplete."""
        values = self.values["training"]
        others = {algorithm for algorithm in typing.get_args(Algorithm) if algorithm != values["algorithm"]}
        return read(Training, {key: value for key, value in values.items() if key not in others})

    @cached_property
    def evaluation(self) -> Evaluation:
        """The evaluation."""
        return read(Evaluation, self.values["evaluation"])

    @cached_property
    def gate(self) -> Gate:
        """The gate."""
        return read(Gate, self.values.get("gate") or {})

    @cached_property
    def registry(self) -> Registry:
        """The entry in the registry."""
        return read(Registry, self.values["registry"])

    @cached_property
    def storage(self) -> Storage:
        """The workspace's claim."""
        return read(Storage, self.values.get("storage") or {})

    @property
    def service_account_name(self) -> str | None:
        """The ServiceAccount of the pods."""
        return self.values.get("serviceAccountName")


MODELS: dict[type[Any], type[Section]] = {
    SecretRef: references.SecretKeyRef, ConfigMapRef: references.ConfigMapRef, CertificateRef: references.CertificateRef,
    PullSecretRef: references.PullSecretRef,
    Resources: pods.Resources, Placement: pods.Placement, BadRows: dataset.BadRows, RowFields: dataset.DatasetFields,
    Dataset: dataset.Dataset, Model: model.Model,
    Osft: training.Osft, Sft: training.Sft, Lora: training.Lora, Checkpoints: training.Checkpoints, Training: training.Training,
    Generation: evaluation.Generation, Evaluation: evaluation.Evaluation, Requirement: evaluation.Requirement, Gate: evaluation.Gate,
    Registry: registry.Registry, Storage: registry.Storage, Retry: lifecycle.Retry, Cleanup: lifecycle.Cleanup,
}  # fmt: skip
"""The model that each section is made from."""


def read(section: type[T], values: Mapping[str, Any]) -> T:
    """Return a section from its JSON values. Fields that are null or unknown to this release are left out."""
    found = {}
    for name, key, convert in _readers(section):  # type: ignore[arg-type]
        value = values.get(key)
        if value is not None:
            found[name] = value if convert is None else convert(value)
    return section(**found)


@functools.cache
def _readers(section: type[Any]) -> tuple[tuple[str, str, Callable[[Any], Any] | None], ...]:
    """The fields of a section: name, name in JSON, and how a JSON value becomes the field's."""
    known, hints = MODELS[section].model_fields, typing.get_type_hints(section)
    return tuple((one.name, str(known[one.name].alias), _converter(hints[one.name])) for one in fields(section))


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return how a JSON value becomes one of a type, ``None`` where it is one already."""
    if isinstance(hint, types.UnionType):
        options = [one for one in typing.get_args(hint) if one is not types.NoneType]
        return _converter(options[0]) if len(options) == 1 else None
    if hint in MODELS:
        return functools.partial(read, hint)
    if typing.get_origin(hint) is tuple:
        inner = _converter(typing.get_args(hint)[0])
        return tuple if inner is None else lambda values: tuple(map(inner, values))
    return float if hint is float else None  # JSON writes 1.0 as 1
