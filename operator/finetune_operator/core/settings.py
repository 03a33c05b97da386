"""The settings for the runs of a namespace: the operator's configuration, and properties of the cluster or the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_contract.addresses import PrivateAddresses

Mode = Literal["local", "cluster"]
Isolation = Literal["mounts", "digests", "none"]
"""How the gate is protected from programs of training: they can write to their folder only; what they could write is not used; not at all."""


@dataclass(frozen=True)
class Machine:
    """The hardware in local mode."""

    gpus: int = 0
    cpus: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True)
class Trainer:
    """The features of the installed Kubeflow Trainer, from the TrainJob schema that it serves.

    Attributes:
        overrides: the field of a TrainJob that changes its runtime's pods. The first two are supported; ``podSpecOverrides``
            (Trainer 2.0) cannot label pods, and the operator finds pods by their labels.
        pod_security: whether that field accepts security contexts (Trainer 2.2 and later).
        grace_period: whether that field accepts ``terminationGracePeriodSeconds`` (2.3 and later).
    """

    overrides: Literal["runtimePatches", "podTemplateOverrides", "podSpecOverrides", "unknown"] = "runtimePatches"
    pod_security: bool = True
    grace_period: bool = True

    @property
    def supported(self) -> bool:
        """Whether the operator can create TrainJobs for it."""
        return self.overrides in ("runtimePatches", "podTemplateOverrides")


@dataclass(frozen=True)
class Allowed:
    """What runs may do (:mod:`.allowed`). ``None`` for a list means that everything is allowed.

    Attributes:
        remote_code: code of the base model, ``model.trustRemoteCode``.
        task_code: functions in the user's task files.
        training_images: registries, namespaces, repositories and images of ``training.image`` (:mod:`.image_names`).
        service_accounts: names in ``serviceAccountName``, in addition to that of the operator's account for stages.
        claims: names of claims that a run does not create itself.
    """

    remote_code: bool = True
    task_code: bool = True
    training_images: tuple[str, ...] | None = None
    service_accounts: tuple[str, ...] | None = None
    claims: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Settings:
    """Settings that ``plan`` receives with each observation.

    Attributes:
        images: images of the stage programs by name (:mod:`.images`).
        bundle_digest: SHA-256 of the training program's files.
        operator_defaults, namespace_defaults: values in the schema of ``spec`` that override the preset's.
        environment: variables for every stage: hub endpoint, proxies.
        allowed_hosts: hosts that the programs may contact, by use (:mod:`finetune_contract.hosts`); a use that is missing has no limit.
        private_addresses: which private addresses the programs may connect to; ``None`` in local mode, where no address is forbidden.
        download_limits: largest size in bytes of what a stage downloads, by stage; a stage that is missing has no limit.
        engine_check: whether a new training image is checked before a GPU is requested.
        allowed: what runs may do.
        isolation: how the gate is protected from programs of training.
        pod_labels, pod_annotations: of the pods of every stage; those in a run's placement override them.
        volume_uri: URI of a claim for the registry, with the placeholder ``{claim}``.
        local_registry: whether a run without a registry address registers in an MLflow store in the workspace.
        retry_seconds: first pause after a transient failure; it doubles.
        progress_seconds: least time between two reads of a running stage's log.
        bundle_archive: the training program as base64 of its zip application.
        fs_group: group that owns the workspace's volume, for pods that run under any user id.
        problem: why the defaults of the namespace cannot be used, in a sentence: no run starts with them.
        trainer: the installed Kubeflow Trainer; ``None`` where there is none.
    """

    mode: Mode
    operator_version: str
    images: Mapping[str, str]
    bundle_digest: str
    machine: Machine | None = None
    operator_defaults: Mapping[str, Any] = field(default_factory=dict)
    namespace_defaults: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    private_addresses: PrivateAddresses | None = None
    download_limits: Mapping[str, int] = field(default_factory=dict)
    engine_check: bool = False
    allowed: Allowed = field(default_factory=Allowed)
    isolation: Isolation = "none"
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    volume_uri: str = "pvc://{claim}"
    local_registry: bool = False
    retry_seconds: float = 10.0
    progress_seconds: float = 10.0
    bundle_archive: str = ""
    trainer: Trainer | None = field(default_factory=Trainer)
    fs_group: int | None = None
    problem: str | None = None
