"""Logs are those of the run's own pods: labels prove nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import JOB, JOBSET, POD, TRAINJOB, Kind
from finetune_operator.cli.attempt_log import pods_of
from finetune_operator.core import naming
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.local.store import Store
from world import World

Object = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


async def put(store: Store, kind: Kind, name: str, owner: Object | None = None, labels: dict[str, str] | None = None) -> Object:
    owners = []
    if owner is not None:
        metadata = owner["metadata"]
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        owners = [{**reference, "controller": True}]
    metadata = {"name": name, "namespace": RUN.namespace, "ownerReferences": owners, "labels": labels or {}}
    spec = {"containers": [{"name": "node"}]} if kind == POD else {}
    return await store.create({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec})


RUN = Run.parse(World.new().run)


async def _names(store: Store, child: Object, stage: str, *, uid: str | None = None) -> list[str]:
    status = StageStatus(
        stage, "Running", 1, child_kind=child["kind"], child_name=child["metadata"]["name"],
        child_uid=child["metadata"]["uid"] if uid is None else uid,
    )  # fmt: skip
    return [pod["metadata"]["name"] for pod in await pods_of(store, RUN, status, None)]


async def test_a_pod_with_the_labels_of_a_job_does_not_replace_its_pod(store: Store) -> None:
    labels = naming.labels(RUN, "dataset", StageStatus("dataset", attempt=1).this_attempt)
    job = await put(store, JOB, "demo-dataset-1-1")
    await put(store, POD, "ours", job, labels)
    await put(store, POD, "alone", None, labels)
    await put(store, POD, "of-another", await put(store, JOB, "forged"), labels)
    assert await _names(store, job, "dataset") == ["ours"]
    assert await _names(store, job, "dataset", uid="") == []


async def test_a_pod_with_the_labels_of_a_trainjob_does_not_replace_its_pod(store: Store) -> None:
    labels = naming.labels(RUN, "training", StageStatus("training", attempt=1).this_attempt)
    trainjob = await put(store, TRAINJOB, "demo-train-1-1")
    job = await put(store, JOB, "demo-train-1-1-node-0", await put(store, JOBSET, "demo-train-1-1", trainjob))
    await put(store, POD, "ours", job, labels)
    await put(store, POD, "alone", None, labels)
    await put(store, POD, "of-another", await put(store, JOB, "forged", trainjob), labels)
    assert await _names(store, trainjob, "training") == ["ours"]
