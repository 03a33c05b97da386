"""Events behind the passes, on the embedded store: none keeps a run waiting, and those of the last pass are not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import EVENT, FINETUNERUN
from finetune_operator.core.decision import Event
from finetune_operator.core.run import Run
from finetune_operator.local.store import Store
from finetune_operator.loop import recorder
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import Transient
from finetune_operator.loop.recorder import EventRecorder
from world import NOW, SETTINGS

TIME = "2026-11-21T12:00:00Z"
RUN: Object = {
    "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "demo", "namespace": "team"},
    "spec": {"dataset": {"uri": "/data.jsonl"}},
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


class Gate:
    """A cluster that answers a call to create when it is opened, and refuses one of a message."""

    def __init__(self, store: Store, refused: str = "") -> None:
        self.store, self.refused, self.open = store, refused, asyncio.Event()

    async def create(self, manifest: Object) -> Object:
        await self.open.wait()
        if manifest["message"] == self.refused:
            raise Transient("etcdserver: request timed out")
        return await self.store.create(manifest)


def told(*messages: str) -> list[Event]:
    return [Event("Normal", "StageStarted", message) for message in messages]


async def messages(store: Store) -> set[str]:
    return {event["message"] for event in (await store.list(EVENT, "team")).items}


async def record(cluster: Any, events: list[Event]) -> EventRecorder:
    run = Run.parse({**RUN, "metadata": {**RUN["metadata"], "uid": "u"}})
    found = EventRecorder(cluster)
    for event in events:
        found.record(run, event, TIME)
    return found


async def test_who_tells_does_not_wait_and_one_that_is_refused_is_left_out(store: Store) -> None:
    cluster = Gate(store, refused="b")
    recorder = await record(cluster, told("a", "b", "c"))
    writing = asyncio.create_task(recorder.write())
    await asyncio.sleep(0)
    assert await messages(store) == set()
    cluster.open.set()
    await recorder.flush()
    assert await messages(store) == {"a", "c"}
    writing.cancel()


async def test_a_cluster_that_takes_no_events_is_not_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_LAST_SECONDS", 0.05)
    waiting = await record(Gate(store), told("a"))
    writing = asyncio.create_task(waiting.write())
    await waiting.flush()
    writing.cancel()
    assert await messages(store) == set()


async def test_more_than_can_wait_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_MOST", 2)
    full = await record(store, told("a", "b", "c"))
    writing = asyncio.create_task(full.write())
    await full.flush()
    writing.cancel()
    assert await messages(store) == {"a", "b"}


async def test_what_the_last_pass_told_is_written_when_the_loop_ends(store: Store) -> None:
    await store.create(RUN)

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: NOW)
    async with controller.running(watching=False):
        await controller.reconcile(("team", "demo"))
    started = (await store.get(FINETUNERUN, "team", "demo"))["status"]["startedAt"]
    assert started
    assert {event["reason"] for event in (await store.list(EVENT, "team")).items} == {"RunStarted"}
