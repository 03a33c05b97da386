"""Events behind the passes, on the embedded store: none keeps a run waiting, and those of the last pass are not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import EVENT, FINETUNERUN
from finetune_operator.core.decision import Event
from finetune_operator.core.run import Run
from finetune_operator.core.times import stamp
from finetune_operator.local.store import Store
from finetune_operator.loop import controller as controller_module
from finetune_operator.loop import recorder
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import Forbidden, Transient
from finetune_operator.loop.recorder import EventRecorder
from waiting import eventually
from world import MINIMAL, NOW, SETTINGS, World

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

    def __init__(self, store: Store, rejected: str = "") -> None:
        self.store, self.rejected, self.open, self.asked = store, rejected, asyncio.Event(), 0

    async def create(self, manifest: Object) -> Object:
        await self.open.wait()
        self.asked += 1
        if manifest["message"] == self.rejected:
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
    cluster = Gate(store, rejected="b")
    recorder = await record(cluster, told("a", "b", "c"))
    writing = asyncio.create_task(recorder.write())
    await asyncio.sleep(0)
    assert await messages(store) == set()
    cluster.open.set()
    await recorder.flush()
    assert await messages(store) == {"a", "c"}
    writing.cancel()


async def test_one_that_a_passing_fault_keeps_away_is_written_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PAUSE_SECONDS", 0.01)
    cluster = Gate(store, rejected="b")
    cluster.open.set()
    writing = asyncio.create_task((await record(cluster, told("a", "b"))).write())
    await eventually(lambda: messages(store), lambda found: found == {"a"})
    cluster.rejected = ""
    await eventually(lambda: messages(store), lambda found: found == {"a", "b"})
    writing.cancel()


async def test_one_that_is_refused_for_long_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "TRIES", 3)
    cluster = Gate(store, rejected="a")
    cluster.open.set()
    found = await record(cluster, told("a"))
    writing = asyncio.create_task(found.write())
    await eventually(lambda: asyncio.sleep(0, cluster.asked), lambda asked: asked == 3)
    await asyncio.sleep(0.05)
    assert cluster.asked == 3
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


# -- after a restart ---------------------------------------------------------------------------------------------------


async def news(store: Store) -> list[tuple[str, str]]:
    """Reason and message of every Event, sorted."""
    return sorted((event["reason"], event["message"]) for event in (await store.list(EVENT, "team")).items)


async def restart(store: Store, now: datetime = NOW) -> list[tuple[str, str]]:
    """Start an operator, and stop it when it has written what was missing."""

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: now)
    async with controller.running(watching=False):
        await controller.write_missing_events()
    return await news(store)


async def ended(store: Store, world: World, name: str = "demo") -> None:
    """A run whose status says how it ended; nobody wrote an Event."""
    await store.create({**RUN, "metadata": {**RUN["metadata"], "name": name}})
    await store.patch_status(FINETUNERUN, "team", name, {"status": world.run["status"]})


async def test_the_next_operator_writes_what_the_one_before_did_not(store: Store) -> None:
    world = World.new()
    world.settle()
    await ended(store, world)
    found = await restart(store)
    assert [reason for reason, _ in found] == ["RunSucceeded", *["StageSucceeded"] * 7]
    assert ("RunSucceeded", "osft-model:1.0.0") in found
    assert await restart(store) == found, "each once"
    assert (await store.list(EVENT, "team")).items[0]["lastTimestamp"] == stamp(NOW)


async def test_a_run_that_cannot_be_read_keeps_no_other_events_from_being_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.new()
    world.settle()
    await ended(store, world, "a")  # listed before the other one
    await ended(store, world)
    lasting = recorder.lasting

    def fail(run: Run) -> Any:
        if run.name == "a":
            raise KeyError("gate")
        return lasting(run)

    monkeypatch.setattr(recorder, "lasting", fail)
    errors: list[str] = []

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: NOW, on_error=errors.append)
    async with controller.running(workers=0, watching=False):
        await eventually(lambda: news(store), lambda found: ("RunSucceeded", "osft-model:1.0.0") in found, 10)
    assert errors == ["task"], "it is not tried again and again"
    assert "the Events of a run could not be read: a" in caplog.text


async def test_only_what_is_missing_is_written_and_nothing_that_would_have_expired(store: Store) -> None:
    world = World.new({**MINIMAL, "limits": {"total": "1h"}})
    world.settle()
    await ended(store, world)
    assert await restart(store, NOW + timedelta(minutes=61)) == []
    found = await restart(store, NOW + timedelta(minutes=59))
    assert found == [("Unsupported", "spec.limits: this release does not support this field; remove it.")]


async def test_the_same_event_told_by_a_pass_and_after_a_restart_is_one(store: Store) -> None:
    await store.create({**RUN, "spec": {**RUN["spec"], "limits": {"total": "1h"}}})

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: NOW)
    async with controller.running(watching=False):
        await controller.reconcile(("team", "demo"))
    before = await news(store)
    assert [reason for reason, _ in before] == ["Unsupported"]
    assert await restart(store) == before


async def test_an_operator_that_may_not_list_events_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.new()
    world.settle()
    await ended(store, world)
    answers = chain([Transient("etcd is away")], repeat(Forbidden("cannot list events")))
    listed = store.list

    async def reject(kind: Any, *arguments: Any, **options: Any) -> Any:
        if kind == EVENT and "fields" in options:
            raise next(answers)
        return await listed(kind, *arguments, **options)

    monkeypatch.setattr(store, "list", reject)
    monkeypatch.setattr(controller_module, "_PAUSE_SECONDS", 0.0)
    assert await restart(store) == []
