"""Events written in the background, on the embedded store: no pass waits for them, and those of the last pass are not lost."""

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
    """A cluster whose calls to create wait until it is opened, and which rejects one message."""

    def __init__(self, store: Store, rejected: str = "") -> None:
        self.store, self.rejected, self.open, self.asked = store, rejected, asyncio.Event(), 0

    async def create(self, manifest: Object) -> Object:
        await self.open.wait()
        self.asked += 1
        if manifest["message"] == self.rejected:
            raise Transient("etcdserver: request timed out")
        return await self.store.create(manifest)


def events_of(*messages: str) -> list[Event]:
    return [Event("Normal", "StageStarted", message) for message in messages]


async def messages(store: Store) -> set[str]:
    return {event["message"] for event in (await store.list(EVENT, "team")).items}


async def record(cluster: Any, events: list[Event]) -> EventRecorder:
    run = Run.parse({**RUN, "metadata": {**RUN["metadata"], "uid": "u"}})
    found = EventRecorder(cluster)
    for event in events:
        found.record(run, event, TIME)
    return found


async def test_recording_does_not_wait_and_a_rejected_event_is_dropped(store: Store) -> None:
    cluster = Gate(store, rejected="b")
    recorder = await record(cluster, events_of("a", "b", "c"))
    writing = asyncio.create_task(recorder.write())
    await asyncio.sleep(0)
    assert await messages(store) == set()
    cluster.open.set()
    await recorder.flush()
    assert await messages(store) == {"a", "c"}
    writing.cancel()


async def test_an_event_is_written_after_a_transient_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PAUSE_SECONDS", 0.01)
    cluster = Gate(store, rejected="b")
    cluster.open.set()
    writing = asyncio.create_task((await record(cluster, events_of("a", "b"))).write())
    await eventually(lambda: messages(store), lambda found: found == {"a"})
    cluster.rejected = ""
    await eventually(lambda: messages(store), lambda found: found == {"a", "b"})
    writing.cancel()


async def test_an_event_is_dropped_after_the_last_attempt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "TRIES", 3)
    cluster = Gate(store, rejected="a")
    cluster.open.set()
    found = await record(cluster, events_of("a"))
    writing = asyncio.create_task(found.write())
    await eventually(lambda: asyncio.sleep(0, cluster.asked), lambda asked: asked == 3)
    await asyncio.sleep(0.05)
    assert cluster.asked == 3
    writing.cancel()


async def test_flush_does_not_wait_for_a_cluster_that_accepts_no_events(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_FLUSH_SECONDS", 0.05)
    waiting = await record(Gate(store), events_of("a"))
    writing = asyncio.create_task(waiting.write())
    await waiting.flush()
    writing.cancel()
    assert await messages(store) == set()


async def test_events_beyond_the_limit_are_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_QUEUE_LIMIT", 2)
    full = await record(store, events_of("a", "b", "c"))
    writing = asyncio.create_task(full.write())
    await full.flush()
    writing.cancel()
    assert await messages(store) == {"a", "b"}


async def test_the_events_of_the_last_pass_are_written_when_the_loop_ends(store: Store) -> None:
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


async def event_list(store: Store) -> list[tuple[str, str]]:
    """Reason and message of every Event, sorted."""
    return sorted((event["reason"], event["message"]) for event in (await store.list(EVENT, "team")).items)


async def restart(store: Store, now: datetime = NOW) -> list[tuple[str, str]]:
    """Start an operator, and stop it when it has written the missing Events."""

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: now)
    async with controller.running(watching=False):
        await controller.write_missing_events()
    return await event_list(store)


async def ended(store: Store, world: World, name: str = "demo") -> None:
    """A run that has ended and has no Events."""
    await store.create({**RUN, "metadata": {**RUN["metadata"], "name": name}})
    await store.patch_status(FINETUNERUN, "team", name, {"status": world.run["status"]})


async def test_the_next_operator_writes_the_missing_events(store: Store) -> None:
    world = World.new()
    world.settle()
    await ended(store, world)
    found = await restart(store)
    assert [reason for reason, _ in found] == ["RunSucceeded", *["StageSucceeded"] * 7]
    assert ("RunSucceeded", "osft-model:1.0.0") in found
    assert await restart(store) == found, "each once"
    assert (await store.list(EVENT, "team")).items[0]["lastTimestamp"] == stamp(NOW)


async def test_a_malformed_run_does_not_affect_the_events_of_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.new()
    world.settle()
    await ended(store, world, "a")  # listed before the other one
    await ended(store, world)
    derive = recorder.lasting_events

    def fail(run: Run) -> Any:
        if run.name == "a":
            raise KeyError("gate")
        return derive(run)

    monkeypatch.setattr(recorder, "lasting_events", fail)
    errors: list[str] = []

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: NOW, on_error=errors.append)
    async with controller.running(workers=0, watching=False):
        await eventually(lambda: event_list(store), lambda found: ("RunSucceeded", "osft-model:1.0.0") in found, 10)
    assert errors == ["task"], "it is not retried"
    assert "run a: its Events could not be derived from its status" in caplog.text


async def test_only_missing_events_that_have_not_expired_are_written(store: Store) -> None:
    world = World.new({**MINIMAL, "limits": {"total": "1h"}})
    world.settle()
    await ended(store, world)
    assert await restart(store, NOW + timedelta(minutes=61)) == []
    found = await restart(store, NOW + timedelta(minutes=59))
    assert found == [("Unsupported", "spec.limits: this release does not support this field; remove it.")]


async def test_an_event_of_a_pass_is_not_written_again_after_a_restart(store: Store) -> None:
    await store.create({**RUN, "spec": {**RUN["spec"], "limits": {"total": "1h"}}})

    async def settings(_namespace: str) -> Any:
        return SETTINGS

    controller = Controller(store, settings, clock=lambda: NOW)
    async with controller.running(watching=False):
        await controller.reconcile(("team", "demo"))
    before = await event_list(store)
    assert [reason for reason, _ in before] == ["Unsupported"]
    assert await restart(store) == before


async def test_an_operator_without_the_right_to_list_events_starts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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
