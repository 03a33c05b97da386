"""Which pods belong to a child: labels prove nothing, and each chain of owners is read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import JOB, JOBSET, POD, TRAINJOB, Kind
from finetune_operator.local.store import Store
from finetune_operator.loop import lineage
from finetune_operator.loop.lineage import Lineage

Object = dict[str, Any]


class Cluster:
    """A store in which only metadata matters, and which counts reads of it."""

    def __init__(self, store: Store) -> None:
        self.store, self.reads = store, 0

    async def get_metadata(self, kind: Kind, namespace: str, name: str) -> Object:
        self.reads += 1
        return await self.store.get_metadata(kind, namespace, name)

    async def put(self, kind: Kind, name: str, owner: Object | None = None, *, controller: bool = True) -> Object:
        owners = []
        if owner is not None:
            metadata = owner["metadata"]
            owners = [{
                "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"],
                "controller": controller,
            }]  # fmt: skip
        metadata = {"name": name, "namespace": "team", "ownerReferences": owners}
        spec = {"containers": [{"name": "node"}]} if kind == POD else {}
        return await self.store.create({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    store = Store(tmp_path / "store.db")
    yield Cluster(store)
    store.close()


async def test_a_pod_of_a_job_is_controlled_by_it(cluster: Cluster) -> None:
    job, other = await cluster.put(JOB, "demo-dataset-1-1"), await cluster.put(JOB, "other")
    ours = await cluster.put(POD, "a", job)
    strangers = [
        await cluster.put(POD, "b"), await cluster.put(POD, "c", other), await cluster.put(POD, "d", job, controller=False),
    ]  # fmt: skip
    assert await Lineage().read(cluster, job, [*strangers, ours]) == [ours]
    assert cluster.reads == 0


async def test_a_pod_of_a_trainjob_is_controlled_by_the_job_of_its_jobset(cluster: Cluster) -> None:
    trainjob = await cluster.put(TRAINJOB, "demo-train-1-1")
    jobset = await cluster.put(JOBSET, "demo-train-1-1", trainjob)
    job = await cluster.put(JOB, "demo-train-1-1-node-0", jobset)
    stranger = await cluster.put(POD, "stranger", await cluster.put(JOB, "stranger"))
    pods = [await cluster.put(POD, "a", job), stranger, await cluster.put(POD, "b", job)]
    known = Lineage()
    assert known.is_ours(job["metadata"]["uid"], trainjob["metadata"]["uid"]) is None
    for _ in range(3):
        assert await known.read(cluster, trainjob, pods) == [pods[0], pods[2]]
    assert cluster.reads == 2, "the chain is read once, and what a stranger is, too"
    assert known.is_ours("", trainjob["metadata"]["uid"]) is False


@pytest.mark.parametrize("broken", ["jobset", "job", "jobset of another", "job of another"])
async def test_a_broken_chain_proves_nothing(cluster: Cluster, broken: str) -> None:
    trainjob, other = await cluster.put(TRAINJOB, "demo-train-1-1"), await cluster.put(TRAINJOB, "other")
    jobset = await cluster.put(
        JOBSET, "x" if broken == "jobset" else "demo-train-1-1", other if broken == "jobset of another" else trainjob
    )
    job = await cluster.put(
        JOB, "x" if broken == "job" else "demo-train-1-1-node-0", other if broken == "job of another" else jobset
    )
    pod = await cluster.put(POD, "a", job)
    assert await Lineage().read(cluster, trainjob, [pod]) == []


async def test_no_more_than_enough_is_remembered(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "_LIMIT", 1)
    trainjob, known = await cluster.put(TRAINJOB, "demo-train-1-1"), Lineage()
    strangers = [await cluster.put(POD, name, await cluster.put(JOB, name)) for name in ("a", "b")]
    for stranger in strangers:
        assert await known.read(cluster, trainjob, [stranger]) == []
    uids = [stranger["metadata"]["ownerReferences"][0]["uid"] for stranger in strangers]
    assert [known.is_ours(uid, trainjob["metadata"]["uid"]) for uid in uids] == [None, False]
