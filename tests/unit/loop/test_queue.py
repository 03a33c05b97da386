"""What a key waits for, and what a pass makes superfluous."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_operator.api.kinds import JOB, TRAINJOB
from finetune_operator.core.observation import Ref, WarningEvent
from finetune_operator.local.store import Store
from finetune_operator.loop import warning_events
from finetune_operator.loop.queue import WorkQueue
from finetune_operator.loop.warning_events import WarningEvents


async def test_what_a_key_would_have_come_for_later_is_done_now() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.05)
    queue.add("a")
    queue.done(await queue.get())
    await asyncio.sleep(0.1)
    assert len(queue) == 0


async def test_what_is_asked_for_during_the_work_comes_after_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add_after("a", 0.05)
    queue.clear_dirty("a")
    queue.done(key)
    assert len(queue) == 0, "what came before the work began to read is covered by it"
    await asyncio.sleep(0.1)
    assert len(queue) == 1, "a later look is not"


async def test_events_are_asked_for_within_bounds(monkeypatch: Any) -> None:
    asked: list[str] = []

    async def answer(_cluster: Any, _namespace: str, about: Any, _now: Any) -> Any:
        asked.extend(ref.name for ref in about)
        return {ref: (WarningEvent("FailedCreate", ref.name),) for ref in about}

    monkeypatch.setattr(warning_events, "warning_events", answer)
    seconds = 0.0
    ask = WarningEvents(lambda: seconds)

    async def hear(*names: str) -> list[str]:
        found = await ask(None, "team", [Ref(JOB, name) for name in names], datetime.now(UTC))  # type: ignore[arg-type]
        return [ref.name for ref in found]

    assert await hear("a", "b", "c", "d", "e", "f") == ["a", "b", "c", "d", "e"]
    assert await hear("a", "f") == ["a"], "what was heard last is as good"
    assert asked == ["a", "b", "c", "d", "e"]
    seconds = 2.0
    assert await hear("f", "a") == ["f", "a"]
    assert asked[5:] == ["f"]


async def test_what_was_said_of_an_earlier_jobset_of_the_name_is_not_heard(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    job = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "a", "namespace": "team"},
        "spec": {},
    }
    made = (await store.create(job))["metadata"]["creationTimestamp"]
    for name, time in (("old", "2020-01-01T00:00:00Z"), ("new", made)):
        await store.create({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "team"}, "type": "Warning", "reason": "Failed",
            "involvedObject": {"kind": "JobSet", "name": "a"}, "message": name, "firstTimestamp": time, "lastTimestamp": time,
        })  # fmt: skip
    ref = Ref(TRAINJOB, "a")
    found = await warning_events.warning_events(store, "team", (ref,), datetime.now(UTC))
    store.close()
    assert [one.message for one in found[ref]] == ["new"]
