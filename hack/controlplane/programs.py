"""The programs of a control plane, and the Go modules under ``modules/`` that pin them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MODULES = Path(__file__).with_name("modules")


@dataclass(frozen=True)
class Program:
    """A program: ``package`` of the Go module ``path``, pinned in the folder ``module`` of ``modules/`` or of ``among``."""

    name: str
    module: str
    path: str
    package: str
    among: Path | None = None

    @property
    def folder(self) -> Path:
        """Return the folder of the wrapper module."""
        return (self.among or MODULES) / self.module

    @property
    def version(self) -> str:
        """Return the version in go.mod, with its ``v``."""
        text = (self.folder / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^(?:require )?\s*{re.escape(self.path)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise ValueError(f"{self.folder}/go.mod does not require {self.path}")
        return found[1]


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}")


def _jobset(version: str) -> Program:
    return Program(f"jobset-{version}", f"jobset-{version}", "sigs.k8s.io/jobset", "sigs.k8s.io/jobset")


def _trainer(version: str) -> Program:
    path = "github.com/kubeflow/trainer/v2"
    return Program(f"trainer-{version}", f"trainer-{version}", path, f"{path}/cmd/trainer-controller-manager")


ETCD = Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3")
API_SERVER = _kubernetes("kube-apiserver")
CONTROLLER_MANAGER = _kubernetes("kube-controller-manager")
SCHEDULER = _kubernetes("kube-scheduler")
KUBECTL = _kubernetes("kubectl")
BASE = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KUBECTL)
ASSETS = frozenset({"etcd", "kube-apiserver", "kubectl"})
"""The programs in a folder ``KUBEBUILDER_ASSETS``."""


@dataclass(frozen=True)
class Generation:
    """A release of Kubeflow Trainer, with its release of JobSet."""

    name: str
    jobset: Program
    trainer: Program


GENERATIONS = {
    # OpenShift AI 3.2 to 3.5: TrainJobs with podTemplateOverrides.
    "2.1": Generation("2.1", _jobset("0.10"), _trainer("2.1")),
    # OpenShift AI 3.6: TrainJobs with runtimePatches.
    "2.3": Generation("2.3", _jobset("0.12"), _trainer("2.3")),
}
GenerationName = Literal["2.1", "2.3", "none"]


def programs_of(generation: Generation | None) -> tuple[Program, ...]:
    """Return the programs of a control plane with or without Trainer."""
    return (*BASE, *with_manifests(generation))


def with_manifests(generation: Generation | None) -> tuple[Program, ...]:
    """Return the programs of a generation that ship manifests."""
    return () if generation is None else (generation.jobset, generation.trainer)
