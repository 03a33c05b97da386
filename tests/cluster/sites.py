"""A place for the operator to work at: a control plane with a node, a namespace, a hub, and what every run of the tests asks for."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydocs
from cluster.operators import Operator, kubeconfig, operator
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from controlplane.node import process_node
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.kube.client import ApiServer
from hub import Hub
from waiting import eventually

Object = dict[str, Any]

TOKEN = "hf_of_the_tests"
"""A token that the hub knows."""
SPEC: Object = {
    "dataset": {"uri": "org/chat"},
    "model": {"uri": "org/tiny"},
    "training": {
        "epochs": 1, "effectiveBatchSize": 16, "learningRate": 5e-3, "maxSeqLen": 256, "maxTokensPerGPU": 4096,
        "osft": {"trainable": "targets"},
    },
    "evaluation": {"tasks": []},
    "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "maxRegression": 0.5}]},
}  # fmt: skip
UNTRAINED = {**SPEC, "evaluation": {"enabled": False}, "gate": None}


@dataclass
class Site:
    """A cluster with a node, a namespace to work in, and everything that an operator needs."""

    plane: ControlPlane
    cluster: ApiServer
    api: Api
    namespace: str
    kubeconfig: Path
    configuration: Object
    folder: Path
    starts: int = 0

    def operator(self, **configuration: Any) -> contextlib.AbstractAsyncContextManager[Operator]:
        """Start an operator."""
        self.starts += 1
        return operator(self.kubeconfig, {**self.configuration, **configuration}, self.folder / f"operator-{self.starts}")

    async def apply(self, spec: Object, name: str = "demo") -> None:
        """Make a run."""
        metadata = {"name": name, "namespace": self.namespace}
        await self.cluster.create(
            {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec}
        )

    async def status(self, name: str = "demo") -> Object:
        """Return the status of the run."""
        found = await self.cluster.get(FINETUNERUN, self.namespace, name)
        status: Object = found.get("status") or {}
        return status

    async def ended(self, name: str = "demo", seconds: float = 240) -> Object:
        """The run's status at its end."""
        return await eventually(lambda: self.status(name), lambda status: "finishedAt" in status, seconds)

    @property
    def workspace(self) -> Path:
        """The folder of the run's claim."""
        return self.folder / "node/volumes" / self.namespace / "demo-workspace"


@contextlib.asynccontextmanager
async def site_at(plane: ControlPlane, cluster: ApiServer, namespace: str, folder: Path, tiny_model: Path) -> AsyncIterator[Site]:
    """A site in ``namespace``, whose ServiceAccount ``finetune-operator`` exists already with its rights."""
    with Hub(folder / "hub") as hub, plane.api() as api, plane.api() as apart, plane.api() as for_secrets:

        def secret(name: str, key: str, _endpoint: str | None = None) -> str | None:
            every = {found["metadata"]["name"]: found.get("data") or {} for found in for_secrets.list("v1", "Secret", namespace)}
            value = every.get(name, {}).get(key)
            return None if value is None else base64.b64decode(value).decode()

        config = kubeconfig(plane, api.token(namespace, "finetune-operator"), namespace, folder / "kubeconfig")
        rows = folder / "rows.jsonl"
        pydocs.write_jsonl(rows, pydocs.rows("signature", 120))
        hub.tokens[TOKEN] = {"org/chat"}
        hub.add("dataset", "org/chat", {"train.jsonl": rows.read_bytes()})
        hub.add("model", "org/tiny", shutil.copytree(tiny_model, folder / "model"))
        configuration = {
            "environment": {"HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}, "progressSeconds": 1, "retrySeconds": 1,
            "namespaces": [namespace], "defaults": {"training": {"runtimeRef": "torch-distributed", "gpusPerWorker": 0}},
        }  # fmt: skip
        serving = plane.authority.server("kubelet")
        async with process_node(cluster, apart, namespace, folder / "node", serving, secrets=secret):
            yield Site(plane, cluster, api, namespace, config, configuration, folder)
