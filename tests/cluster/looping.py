"""An operator at work on a real control plane, in a namespace whose pods need no node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.conftest import Connect
from cluster.instant_pods import InstantPods
from cluster.operators import Operator, install_rights, kubeconfig, operator
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.run import Run
from finetune_operator.kube.client import ApiServer
from waiting import eventually

SPEC: dict[str, Any] = {
    "dataset": {"uri": "org/chat"}, "model": {"uri": "org/tiny"}, "evaluation": {"tasks": [], "baseline": True},
    "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 3.0}]},
    "registry": {"address": "https://registry.example.com", "name": "tiny"},
}  # fmt: skip


@dataclass
class Loop:
    """An operator at work in a namespace whose pods end at once."""

    cluster: ApiServer
    api: Api
    namespace: str
    pods: InstantPods
    operator: Operator

    async def apply(self, name: str = "demo") -> None:
        metadata = {"name": name, "namespace": self.namespace}
        await self.cluster.create(
            {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC}
        )

    async def edit(self, spec: dict[str, Any], name: str = "demo") -> None:
        await self.cluster.patch(FINETUNERUN, self.namespace, name, {"spec": spec})

    async def run(self, name: str = "demo") -> Run:
        return Run.parse(await self.cluster.get(FINETUNERUN, self.namespace, name))

    async def ended(self, round_: int = 1, name: str = "demo") -> Run:
        run = await eventually(lambda: self.run(name), lambda run: run.ended and run.round == round_, 60)
        assert run.status["phase"] == "Succeeded", run.status.get("failure")
        return run

    async def stalled(self, reason: str, name: str = "demo") -> Run:
        return await eventually(lambda: self.run(name), lambda run: condition_of(run, "Stalled") == ("True", reason), 60)


def condition_of(run: Run, type_: str) -> tuple[str, str]:
    found = {one["type"]: (one["status"], one["reason"]) for one in run.status.get("conditions") or ()}
    return found.get(type_, ("", ""))


@asynccontextmanager
async def looping(
    control_plane: ControlPlane, api: Api, connect: Connect, namespace: str, folder: Path, *, home: str | None = None
) -> AsyncIterator[Loop]:
    """The operator at work in ``namespace`` inside the context. It must end without errors and warnings.

    It gets the rights of ``manifests/base``, or it lives in the namespace ``home``, where it has its rights already.
    """
    if home is None:
        install_rights(api, namespace)
    home = home or namespace
    config = kubeconfig(control_plane, api.token(home, "finetune-operator"), home, folder / "kubeconfig")
    configuration = {
        "progressSeconds": 1, "retrySeconds": 1, "namespaces": [namespace],
        "defaults": {"training": {"runtimeRef": "torch-distributed", "gpusPerWorker": 0}},
    }  # fmt: skip
    async with (
        connect() as cluster,
        InstantPods(cluster, namespace).live() as pods,
        operator(config, configuration, folder / "o") as running,
    ):
        yield Loop(cluster, api, namespace, pods, running)
        assert 'finetune_errors_total{source="watch"} 0.0' in await running.metrics()
        assert running.problems() == []
