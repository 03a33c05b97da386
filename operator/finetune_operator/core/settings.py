"""What the place where a run runs is like: the operator's configuration and what was found out about cluster or machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["local", "cluster"]


@dataclass(frozen=True)
class Machine:
    """The hardware of local mode."""

    gpus: int = 0
    cpus: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True)
class Trainer:
    """What the Kubeflow Trainer at hand takes, told from the schema of TrainJob that it serves.

    Attributes:
        overrides: the field of a TrainJob that changes its runtime's pods. Only the first two are written; ``podSpecOverrides``
            (Trainer 2.0) cannot label pods, so that nobody would find them again.
        pod_security: whether security contexts may stand there (Trainer 2.2 and later).
        grace_period: whether ``terminationGracePeriodSeconds`` may (2.3 and later).
    """

    overrides: Literal["runtimePatches", "podTemplateOverrides", "podSpecOverrides", "unknown"] = "runtimePatches"
    pod_security: bool = True
    grace_period: bool = True

    @property
    def supported(self) -> bool:
        """Whether a TrainJob can be made for it."""
        return self.overrides in ("runtimePatches", "podTemplateOverrides")


@dataclass(frozen=True)
class Settings:
    """Given to ``plan`` with each observation.

    Attributes:
        images: image of each stage program.
        entry_digest: SHA-256 of the training program's files.
        operator_defaults, namespace_defaults: values in the shape of ``spec`` that go above the preset's.
        environment: variables for every stage: hub endpoint, proxies.
        pod_labels, pod_annotations: of the pods of every stage; those of a run's placement go above them.
        volume_uri: how the registry names a claim's content, with ``{claim}``.
        local_registry: a run without a registry address registers in MLflow's store in the workspace.
        retry_seconds: first pause after a passing fault; it doubles.
        progress_seconds: least time between two looks at a running stage's log.
        entry_archive: the training program as base64 of its zip application.
        fs_group: group that a node gives the workspace's volume to, for pods that run under any user id.
        problem: what is wrong with the defaults of the namespace, in a sentence: no run begins with them.
        trainer: what the Kubeflow Trainer at hand takes; ``None`` where there is none.
    """

    mode: Mode
    operator_version: str
    images: Mapping[str, str]
    entry_digest: str
    machine: Machine | None = None
    operator_defaults: Mapping[str, Any] = field(default_factory=dict)
    namespace_defaults: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    volume_uri: str = "pvc://{claim}"
    local_registry: bool = False
    retry_seconds: float = 10.0
    progress_seconds: float = 10.0
    entry_archive: str = ""
    trainer: Trainer | None = field(default_factory=Trainer)
    fs_group: int | None = None
    problem: str | None = None
