"""The work queue, and the rate limit for reads of Events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_operator.api.kinds import JOB, JOBSET, TRAINJOB, Kind
from finetune_operator.core.observation import Ref, WarningEvent
from finetune_operator.local.store import Store
from finetune_operator.loop import warning_events
from finetune_operator.loop.queue import WorkQueue
from finetune_operator.loop.warning_events import WarningEvents


async def test_getting_a_key_cancels_its_later_time() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.05)
    queue.add("a")
    queue.done(await queue.get())
    await asyncio.sleep(0.1)
    assert len(queue) == 0


async def test_a_later_time_set_during_the_work_is_kept() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add_after("a", 0.05)
    queue.clear_dirty("a")
    queue.done(key)
    assert len(queue) == 0, "the work that begins to read now covers it"
    await asyncio.sleep(0.1)
    assert len(queue) == 1, "the later time is kept"


async def test_reads_of_events_are_limited(monkeypatch: Any) -> None:
    asked: list[str] = []

    async def answer(_cluster: Any, _namespace: str, about: Any, _now: Any) -> Any:
        asked.extend(ref.name for ref in about)
        return {ref: (WarningEvent("FailedCreate", ref.name),) for ref in about}

    monkeypatch.setattr(warning_events, "list_warning_events", answer)
    seconds = 0.0
    cache = WarningEvents(lambda: seconds)

    async def read(*names: str) -> list[str]:
        found = await cache.read(None, "team", [Ref(JOB, name) for name in names], datetime.now(UTC))  # type: ignore[arg-type]
        return [ref.name for ref in found]

    assert await read("a", "b", "c", "d", "e", "f") == ["a", "b", "c", "d", "e"]
    assert await read("a", "f") == ["a"], "the others are served from the cache"
    assert asked == ["a", "b", "c", "d", "e"]
    seconds = 2.0
    assert await read("f", "a") == ["f", "a"]
    assert asked[5:] == ["f"]


async def test_events_about_a_jobset_of_another_object_are_ignored(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    ref = Ref(TRAINJOB, "a")

    async def put(kind: Kind, name: str, owner: str | None = None, **labels: str) -> str:
        owners = [] if owner is None else [{"apiVersion": "x/v1", "kind": "Owner", "name": "a", "uid": owner, "controller": True}]
        metadata = {"name": name, "namespace": "team", "labels": labels, "ownerReferences": owners}
        made = await store.create({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": {}})
        return str(made["metadata"]["uid"])

    async def event(name: str, uid: str) -> None:
        about = {"kind": "Object", "name": "a", "uid": uid}
        time = "2026-11-30T00:00:00Z"
        await store.create({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "team"}, "type": "Warning", "reason": "Failed",
            "involvedObject": about, "message": name, "firstTimestamp": time, "lastTimestamp": time,
        })  # fmt: skip

    async def messages() -> set[str]:
        found = await warning_events.list_warning_events(store, "team", (ref,), datetime.now(UTC))
        return {one.message for one in found.get(ref, ())}

    trainjob = await put(TRAINJOB, "a")
    assert await messages() == set(), "there is no JobSet"
    stranger = await put(JOBSET, "a", "of-an-earlier-trainjob")
    await event("jobset-of-another", stranger)
    await event("trainjob", trainjob)
    assert await messages() == {"trainjob"}
    await store.delete(JOBSET, "team", "a")
    jobset = await put(JOBSET, "a", trainjob)
    await event("jobset", jobset)
    label = {"jobset.sigs.k8s.io/jobset-name": "a"}
    await event("job", await put(JOB, "a-node-0", jobset, **label))
    await event("job-of-another", await put(JOB, "b", "another", **label))
    assert await messages() == {"trainjob", "jobset", "job"}
    store.close()
