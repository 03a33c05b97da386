"""The engine check on the embedded store: what is read for it, and that no error about its record or its runtime holds a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import CLUSTER_TRAINING_RUNTIME, CONFIGMAP, FINETUNERUN, TRAINJOB, Kind
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.local.store import Store
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import Forbidden
from world import NOW

from .driven import IMAGE, REAL, finish_children

CLUSTER = replace(REAL, mode="cluster", engine_check=True, machine=None, operator_defaults={"storage": {"size": "1Gi"}})
RECORDS = "finetune-engine-check-"


class Recorded:
    """The store behind a connection that counts reads by kind, and that forbids what a test names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: Counter[str] = Counter()
        self.forbidden: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        self._count(kind, name)
        return await self._store.get(kind, namespace, name)

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Object:
        self._count(kind, name)
        return await self._store.get_metadata(kind, namespace, name)

    async def create(self, manifest: Object, *, dry_run: bool = False) -> Object:
        if manifest["metadata"].get("name", "").startswith(self.forbidden or ("\0",)):
            raise Forbidden("exceeded quota: configmaps")
        return await self._store.create(manifest, dry_run=dry_run)

    def _count(self, kind: Kind, name: str) -> None:
        self.reads[RECORDS if name.startswith(RECORDS) else kind.name] += 1
        if kind.name in self.forbidden:
            raise Forbidden(f'cannot get resource "{kind.plural}"')


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Recorded]:
    """A store with the default runtime, which names an image by its digest."""
    store = Store(tmp_path / "store.db")
    container = {"name": "node", "image": IMAGE}
    job = {"name": "node", "template": {"spec": {"template": {"spec": {"containers": [container]}}}}}
    await store.create({
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime", "metadata": {"name": "training-hub"},
        "spec": {"template": {"spec": {"replicatedJobs": [job]}}},
    })  # fmt: skip
    yield Recorded(store)
    store.close()


async def ended(cluster: Recorded, name: str, training: dict[str, Any] | None = None) -> Run:
    """A run at its end."""

    async def everywhere(_namespace: str) -> Settings:
        return CLUSTER

    spec = {"dataset": {"uri": "org/data"}, "evaluation": {"enabled": False}, "training": training or {}}
    metadata = {"name": name, "namespace": "team"}
    await cluster.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec})
    controller = Controller(cluster, everywhere, clock=lambda: NOW)  # type: ignore[arg-type]
    for _ in range(40):
        await controller.reconcile(("team", name))
        run = Run.parse(await cluster.get(FINETUNERUN, "team", name))
        if run.ended:
            assert run.status["phase"] == "Succeeded", run.status.get("failure")
            return run
        await finish_children(cluster._store)
    raise AssertionError(run.status)


async def names(cluster: Recorded, kind: Kind) -> list[str]:
    return sorted(item["metadata"]["name"] for item in (await cluster.list(kind, "team")).items)


async def test_two_runs_on_one_image_have_one_check(cluster: Recorded) -> None:
    first = await ended(cluster, "first")
    assert first.stages["engine-check"].reason == "Succeeded"
    assert cluster.reads["ClusterTrainingRuntime"] == 1
    second = await ended(cluster, "second")
    assert second.stages["engine-check"].reason == "Reused"
    assert cluster.reads["ClusterTrainingRuntime"] == 2
    assert cluster.reads[RECORDS] == 3, "looked for, then read with its content by another process"
    assert await names(cluster, TRAINJOB) == ["first-engine-1-1", "first-train-1-1", "second-train-1-1"]
    assert sum(name.startswith(RECORDS) for name in await names(cluster, CONFIGMAP)) == 1


async def test_without_a_gpu_nothing_is_read_for_the_check(cluster: Recorded) -> None:
    await ended(cluster, "demo", {"gpusPerWorker": 0})
    assert (cluster.reads["ClusterTrainingRuntime"], cluster.reads[RECORDS]) == (0, 0)
    assert await names(cluster, TRAINJOB) == ["demo-train-1-1"]


async def test_a_runtime_that_the_operator_may_not_read_costs_a_check_and_holds_no_run(cluster: Recorded) -> None:
    cluster.forbidden = (CLUSTER_TRAINING_RUNTIME.name,)
    for name in ("first", "second"):
        run = await ended(cluster, name)
        assert run.stages["engine-check"].reason == "Succeeded"
    assert sum(name.startswith(RECORDS) for name in await names(cluster, CONFIGMAP)) == 1


async def test_a_configmap_that_the_operator_may_not_read_is_reported(cluster: Recorded) -> None:
    cluster.forbidden = (CONFIGMAP.name,)
    with pytest.raises(Forbidden):
        await ended(cluster, "demo")


async def test_a_record_that_is_rejected_holds_no_run(cluster: Recorded) -> None:
    cluster.forbidden = (RECORDS,)
    run = await ended(cluster, "demo")
    assert run.stages["engine-check"].reason == "Succeeded"
    assert not any(name.startswith(RECORDS) for name in await names(cluster, CONFIGMAP))
