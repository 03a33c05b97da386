"""The operator on a real control plane: the whole run through real Jobs, TrainJobs and JobSets, its pods as processes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pydocs
from cluster.conftest import Connect
from cluster.operators import Operator, install_rights, kubeconfig, operator
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from controlplane.node import process_node
from finetune_operator.api.kinds import EVENT, FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.kube.client import ApiServer
from hub import Hub
from model_registry_server import ModelRegistryServer
from waiting import eventually

Object = dict[str, Any]
ONE = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)
pytestmark = pytest.mark.timeout(600)


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
        """What the run says."""
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


@pytest.fixture
async def site(
    control_plane: ControlPlane, api: Api, connect: Connect, namespace: str, tmp_path: Path, tiny_model: Path
) -> AsyncIterator[Site]:
    install_rights(api, namespace)
    config = kubeconfig(control_plane, api.token(namespace, "finetune-operator"), namespace, tmp_path / "kubeconfig")
    with Hub(tmp_path / "hub") as hub:
        rows = tmp_path / "rows.jsonl"
        pydocs.write_jsonl(rows, pydocs.rows("signature", 120))
        hub.add("dataset", "org/chat", {"train.jsonl": rows.read_bytes()})
        hub.add("model", "org/tiny", shutil.copytree(tiny_model, tmp_path / "model"))
        configuration = {
            "environment": {"HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}, "progressSeconds": 1, "namespaces": [namespace],
            "defaults": {"training": {"runtimeRef": "torch-distributed", "gpusPerWorker": 0}},
        }  # fmt: skip
        serving = control_plane.authority.server("kubelet")
        async with connect() as cluster:
            with control_plane.api() as apart:
                async with process_node(cluster, apart, namespace, tmp_path / "node", serving):
                    yield Site(control_plane, cluster, api, namespace, config, configuration, tmp_path)


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


async def test_a_run_goes_from_its_data_to_the_registry(site: Site) -> None:
    with ModelRegistryServer() as registry:
        async with site.operator() as running:
            await site.apply({**SPEC, "registry": {"address": registry.url, "name": "tiny"}})
            status = await site.ended()
            assert status["phase"] == "Succeeded", status.get("failure")
            assert running.problems() == []
            # The last pass is counted when its status is written, which is what this test has just seen.
            count = 'finetune_transitions_total{reason="StageSucceeded"} 8.0'
            assert "finetune_leader 1.0" in await eventually(running.metrics, lambda text: count in text)
            assert await running.stop() == 0
            told = [line for line in running.lines() if line.get("reason") == "StageStarted"]
            assert {(line["run"], line["attempt"]) for line in told} == {(f"{site.namespace}/demo", "1.1")}
            assert [line["stage"] for line in told][-1] == "registration"
    assert {stage["name"]: stage["state"] for stage in status["stages"]} == {
        **dict.fromkeys(
            ("workspace", "dataset", "model", "training", "baseline", "evaluation", "gate", "registration"), "Succeeded"
        ),
        "registry-check": "Skipped",
    }
    assert status["model"]["uri"].startswith("pvc://demo-workspace/runs/demo-")
    (version,) = registry.versions("tiny")
    assert registry.artifacts(version)[0]["uri"] == status["model"]["uri"]
    assert len(status["history"]) > 2, "the loss came while it trained"
    jobs = (await site.cluster.list(JOB, site.namespace)).items
    assert len([job for job in jobs if "finetunerun.io/run" in job["metadata"]["labels"]]) == 5
    (trainjob,) = (await site.cluster.list(TRAINJOB, site.namespace)).items
    assert {"type": "Complete", "status": "True"}.items() <= trainjob["status"]["conditions"][-1].items()
    pods = (await site.cluster.list(POD, site.namespace)).items
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"finetune-stage"}
    news = [
        event["reason"]
        for event in (await site.cluster.list(EVENT, site.namespace)).items
        if event["involvedObject"]["name"] == "demo"
    ]
    assert news.count("RunSucceeded") == 1
    assert len(news) <= 20


@ONE
async def test_two_nodes_train_together(site: Site) -> None:
    spec = {
        **UNTRAINED,
        "training": {**SPEC["training"], "algorithm": "sft", "workers": 2, "resources": {"cpu": 1, "memory": "1Gi"}},
    }
    del spec["training"]["osft"], spec["gate"]
    async with site.operator():
        await site.apply(spec)
        status = await site.ended()
    assert status["phase"] == "Succeeded", status.get("failure")
    assert (await site.cluster.list(POD, site.namespace, labels={"finetunerun.io/stage": "training"})).items[1:]


@ONE
async def test_killed_at_any_time_the_next_operator_goes_on(site: Site) -> None:
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    await site.apply(spec)
    for pause in (1.5, 2.5, 4.0):
        async with site.operator() as running:
            await asyncio.sleep(pause)
            running.kill()
    async with site.operator() as running:
        status = await site.ended()
        assert running.problems() == []
    assert status["phase"] == "Succeeded", status.get("failure")
    assert all(stage.get("attempt", 1) == 1 for stage in status["stages"])


@ONE
async def test_bad_input_ends_the_run_with_its_reason(site: Site) -> None:
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    async with site.operator():
        await site.apply({**spec, "dataset": {"uri": "org/nothing"}})
        status = await site.ended()
        assert (status["phase"], status["failure"]["reason"]) == ("Failed", "DatasetNotFound")
        assert "dataset.uri" in status["failure"]["hint"]


@ONE
async def test_two_operators_take_turns(site: Site) -> None:
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    async with site.operator() as first, site.operator() as second:
        await eventually(lambda: _leaders(first, second), lambda leaders: len(leaders) == 1)
        (leader,) = await _leaders(first, second)
        other = second if leader is first else first
        await site.apply(spec)
        await eventually(site.status, lambda status: bool(status.get("stages")))
        assert await leader.stop() == 0
        status = await site.ended()
        assert status["phase"] == "Succeeded"
        assert await _leaders(first, second) == [leader, other] or await _leaders(first, second) == [other, leader]


async def _leaders(*operators: Operator) -> list[Operator]:
    return [one for one in operators if any("is held by" in line["message"] for line in one.lines())]
