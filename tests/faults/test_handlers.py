"""Handling of events: reruns from every stage start, and an exception costs time and nothing else."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import CONFIGMAP, EVENT, FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.core.run import Run
from finetune_operator.core.times import moment, stamp
from finetune_operator.local.store import Store
from finetune_operator.loop import controller as loop
from finetune_operator.loop import supervisor
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.queue import FIRST_PAUSE, WorkQueue
from reruns import CHANGES
from waiting import eventually
from world import NOW

from .driven import KEY, SPEC, controlled_by, drive, everywhere, finish_children


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with a run that has succeeded."""
    store = Store(tmp_path / "store.db")
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC})
    assert (await drive(store, store)).status["phase"] == "Succeeded"
    yield store
    store.close()


async def read(store: Store) -> Run:
    return Run.parse(await store.get(FINETUNERUN, *KEY))


@pytest.mark.parametrize("changed", [False, True], ids=["plain", "changed"])
@pytest.mark.parametrize("stage", CHANGES)
async def test_a_rerun_from_every_stage_starts_by_itself(store: Store, stage: str, changed: bool) -> None:
    """As on a cluster: the controller receives the event of the edit and no other, and there is no resync."""
    errors: list[str] = []
    controller = Controller(store, everywhere, clock=lambda: NOW, on_error=errors.append)
    controller.on_event(FINETUNERUN, await store.get(FINETUNERUN, *KEY), None)
    async with controller.running(workers=1):
        await asyncio.sleep(0.1)
        assert (await read(store)).round == 1, "an ended run needs no pass"
        spec = {"rerun": {"id": "again", "from": stage}, **(CHANGES[stage] if changed else {})}
        await store.patch(FINETUNERUN, *KEY, {"spec": spec})
        for _ in range(200):
            run = await read(store)
            if run.ended and run.round == 2:
                break
            await finish_children(store)
            await asyncio.sleep(0.05)
    assert (run.round, run.status.get("phase"), run.status["rerunId"]) == (2, "Succeeded", "again")
    assert run.status["observedGeneration"] == run.generation
    assert errors == []


async def test_a_handler_that_raises_is_counted_and_its_run_gets_a_pass(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[str] = []
    controller = Controller(store, everywhere, clock=lambda: NOW, on_error=errors.append)

    def fail(*_: Any) -> float:
        raise KeyError("evaluation")

    monkeypatch.setattr(loop, "idle_seconds", fail)
    await store.patch(FINETUNERUN, *KEY, {"spec": {"rerun": {"id": "again", "from": "evaluation"}}})
    async with controller.running(workers=1):
        await eventually(lambda: read(store), lambda run: run.round == 2, 10)
    assert "watch" in errors
    assert "KeyError: 'evaluation'" in caplog.text


@pytest.mark.parametrize("item", [{}, {"metadata": {}}, {"metadata": None}, {"metadata": {"name": "demo", "labels": []}}, None])
@pytest.mark.parametrize("kind", [FINETUNERUN, JOB, POD])
async def test_a_malformed_event_ends_no_task(store: Store, kind: Any, item: Any) -> None:
    controller = Controller(store, everywhere)
    controller.on_event(kind, item, "MODIFIED")
    controller.on_event(kind, item, None)


async def test_the_pause_grows_while_the_handlers_of_a_run_fail() -> None:
    queue: WorkQueue[str] = WorkQueue()
    pauses = [queue.add_rate_limited("a") for _ in range(3)]
    assert [FIRST_PAUSE * 2**number <= pause <= FIRST_PAUSE * 2**number * 1.5 for number, pause in enumerate(pauses)] == [
        True
    ] * 3
    queue.add("a")
    queue.done(await queue.get())
    assert queue.add_rate_limited("a") <= FIRST_PAUSE * 1.5, "a successful pass resets the pause"


async def test_a_pass_that_raises_is_counted_and_repeated(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[str] = []
    calls: list[int] = []

    def observer(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the sink is full")

    controller = Controller(store, everywhere, clock=lambda: NOW, observer=observer, on_error=errors.append)
    await store.patch(FINETUNERUN, *KEY, {"spec": {"rerun": {"id": "again", "from": "gate"}}})
    async with controller.running(workers=1):
        await eventually(lambda: read(store), lambda run: run.round == 2, 10)
        await asyncio.wait_for(_until(lambda: len(calls) > 1), 5)
    assert errors == ["reconcile"]
    assert "RuntimeError" in caplog.text


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.02)


async def test_a_task_of_the_loop_that_raises_is_restarted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[str] = []
    watches = 0
    monkeypatch.setattr(supervisor, "_RESTART_SECONDS", 0.05)
    watch = store.watch

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal watches
        watches += 1
        if watches <= 4:
            raise ValueError("no JSON")
        return watch(*args, **kwargs)

    monkeypatch.setattr(store, "watch", broken)
    controller = Controller(store, everywhere, clock=lambda: NOW, on_error=errors.append)
    async with controller.running(workers=1):
        await store.patch(FINETUNERUN, *KEY, {"spec": {"rerun": {"id": "again", "from": "gate"}}})
        await eventually(lambda: read(store), lambda run: run.round == 2, 10)
    assert errors == ["task"] * 4


async def test_the_resync_finds_an_edit_without_an_event(store: Store) -> None:
    controller = Controller(store, everywhere, clock=lambda: NOW, resync_seconds=0.1)
    await store.patch(FINETUNERUN, *KEY, {"spec": {"rerun": {"id": "again", "from": "gate"}}})
    async with controller.running(workers=1, watching=False):
        await eventually(lambda: read(store), lambda run: run.round == 2, 10)


async def test_a_malformed_run_does_not_affect_the_resync_of_others(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[str] = []
    malformed = {"name": "a", "namespace": "team"}  # listed before the other one
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": malformed, "spec": SPEC})
    status = {"startedAt": stamp(NOW), "finishedAt": stamp(NOW), "observedGeneration": 1, "conditions": []}
    await store.patch_status(FINETUNERUN, "team", "a", {"status": status})
    controller = Controller(store, everywhere, clock=lambda: NOW, on_error=errors.append, resync_seconds=0.1)
    await store.patch(FINETUNERUN, *KEY, {"spec": {"rerun": {"id": "again", "from": "gate"}}})
    async with controller.running(workers=1, watching=False):
        await eventually(lambda: read(store), lambda run: run.round == 2, 10)
    assert "reconcile" in errors
    assert "task" not in errors, "no task of the loop ended"
    assert "TypeError: Cleanup.__init__() missing" in caplog.text


async def test_the_pause_before_a_restart_grows_while_a_task_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[str] = []
    monkeypatch.setattr(supervisor, "_RESTART_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "_LONGEST_RESTART_SECONDS", 0.64)

    async def fail() -> None:
        raise KeyError("gate")

    controller = Controller(store, everywhere, on_error=errors.append)
    monkeypatch.setattr(controller, "resync", fail)
    async with controller.running(workers=1, watching=False):
        await asyncio.sleep(0.8)
    assert 4 <= len(errors) <= 7, "with a constant pause there are 40"


async def test_a_task_that_ran_for_long_is_restarted_after_the_first_pause(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[str] = []
    monkeypatch.setattr(supervisor, "_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_LONGEST_RESTART_SECONDS", 0.02)
    pauses: list[float] = []
    began = asyncio.get_running_loop().time

    async def run_for_long() -> None:
        pauses.append(began())
        await asyncio.sleep(0.03)
        raise KeyError("gate")

    controller = Controller(store, everywhere, on_error=errors.append)
    monkeypatch.setattr(controller, "resync", run_for_long)
    async with controller.running(workers=1, watching=False):
        await eventually(lambda: asyncio.sleep(0, len(pauses)), lambda count: count >= 4, 10)
    assert set(errors) == {"task"}


async def test_a_rejected_rerun_leaves_a_warning_and_the_results(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    before = await read(store)
    controller = Controller(store, everywhere, clock=lambda: NOW)
    await store.patch(FINETUNERUN, *KEY, {"spec": {"rerun": {"id": "b", "from": "gate"}, "publish": {"uri": "oci://r/x"}}})
    async with controller.running(workers=1):
        run = await eventually(lambda: read(store), lambda run: run.status["observedGeneration"] == run.generation, 10)
        assert (run.status["phase"], run.status["registry"], run.status["model"]) == (
            "Succeeded", before.status["registry"], before.status["model"],
        )  # fmt: skip
        assert run.status["conditions"][-1]["type"] == "RerunRejected"
        await store.patch(FINETUNERUN, *KEY, {"spec": {"publish": None}})
        run = await eventually(lambda: read(store), lambda run: run.round == 2, 10)
    assert "RerunRejected" not in {one["type"] for one in run.status["conditions"]}
    events = (await store.list(EVENT, "team", fields={"reason": "Unsupported"})).items
    assert [(one["type"], one["message"].split(":")[0]) for one in events] == [("Warning", "rerun b")]


# -- shared objects ----------------------------------------------------------------------------------------------------


async def test_a_foreign_inputs_configmap_is_never_mounted_and_the_run_resumes_when_it_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "foreign.db")
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC})
    stranger = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "demo-inputs-1", "namespace": "team"},
        "data": {"a": "b"},
    }
    await store.create(stranger)
    controller = Controller(store, everywhere, clock=lambda: NOW)
    for _ in range(4):
        await controller.reconcile(KEY)
    assert not (await store.list(JOB, "team")).items
    stalled = next(one for one in (await read(store)).status["conditions"] if one["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NameConflict")
    await store.delete(CONFIGMAP, "team", "demo-inputs-1")
    assert (await drive(store, store)).status["phase"] == "Succeeded"
    store.close()


@pytest.mark.parametrize("deleted", ["demo-inputs-1", "bundle"])
async def test_a_configmap_that_is_deleted_before_its_pod_starts_is_created_again(tmp_path: Path, deleted: str) -> None:
    store = Store(tmp_path / "deleted.db")
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC})
    clock = [NOW]
    controller = Controller(store, everywhere, clock=lambda: clock[0])
    while not (trainjobs := (await store.list(TRAINJOB, "team")).items):
        await controller.reconcile(KEY)
        if not (await store.list(TRAINJOB, "team")).items:
            await finish_children(store)
    labels = trainjobs[0]["metadata"]["labels"]
    pod = {"name": "p", "namespace": "team", "labels": labels, "ownerReferences": controlled_by(trainjobs[0])}
    await store.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"nodeName": "n", "containers": [{"name": "node"}]}}
    )
    made = (await store.list(CONFIGMAP, "team")).items
    name = (
        next(one["metadata"]["name"] for one in made if one["metadata"]["name"].startswith("finetune-training-bundle"))
        if deleted == "bundle"
        else deleted
    )
    await store.delete(CONFIGMAP, "team", name)
    created = Run.parse(await store.get(FINETUNERUN, *KEY))
    assert created.stages["training"].state == "Running"
    clock[0] = moment((await store.get(POD, "team", "p"))["metadata"]["creationTimestamp"]) + timedelta(seconds=3)
    for _ in range(2):
        await controller.reconcile(KEY)
    again = await store.get(CONFIGMAP, "team", name)
    before = next(one for one in made if one["metadata"]["name"] == name)
    assert {key: again[key] for key in ("data", "binaryData") if key in again} == {
        key: before[key] for key in ("data", "binaryData") if key in before
    }


async def test_a_run_without_faults_reads_only_the_metadata_of_configmaps(tmp_path: Path) -> None:
    """The digests of objects that this process created are cached."""
    store = Store(tmp_path / "reads.db")
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC})
    read: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def get(self, kind: Any, namespace: str | None, name: str) -> Any:
            read.append(str(kind))
            return await store.get(kind, namespace, name)

    assert (await drive(store, Watched())).status["phase"] == "Succeeded"
    assert str(FINETUNERUN) in read
    assert str(CONFIGMAP) not in read
    store.close()


# -- exceptions in the operator's own program --------------------------------------------------------------------------


def stalled(run: Run) -> tuple[str, str]:
    found = next((one for one in run.status.get("conditions") or () if one["type"] == "Stalled"), {})
    return found.get("status", ""), found.get("reason", "")


async def test_a_plan_that_raises_stalls_the_run_until_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "raises.db")
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC})
    errors: list[str] = []
    attempts: list[float] = []

    def fail(*_: Any) -> Any:
        attempts.append(asyncio.get_running_loop().time())
        raise ZeroDivisionError("token=hf_secret")

    monkeypatch.setattr(loop, "plan", fail)
    controller = Controller(store, everywhere, clock=lambda: NOW, on_error=errors.append)
    async with controller.running(workers=1):
        run = await eventually(lambda: read(store), lambda run: stalled(run) == ("True", "InternalError"), 10)
        message = next(one["message"] for one in run.status["conditions"] if one["type"] == "Stalled")
        assert message.startswith("The operator raised ZeroDivisionError in its own program. Report the type of the exception")
        assert "Traceback" not in message
        await eventually(lambda: asyncio.sleep(0, len(attempts)), lambda count: count >= 4, 10)
        pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
        assert [pause >= FIRST_PAUSE * 2**number for number, pause in enumerate(pauses[:3])] == [True] * 3, "backoff"
        monkeypatch.undo()
        await eventually(lambda: read(store), lambda run: run.started and stalled(run)[0] == "False", 10)
    assert set(errors) == {"reconcile"}
    assert len(errors) == len(attempts)
    assert "token=hf_secret" in caplog.text, "the log has the exception"
    assert "hf_secret" not in str((await read(store)).status)
    events = (await store.list(EVENT, "team", fields={"reason": "InternalError"})).items
    assert [one["type"] for one in events] == ["Warning"], "one Event"
    store.close()


async def test_a_held_run_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "once.db")
    metadata = {"name": "demo", "namespace": "team"}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC})

    def fail(*_: Any) -> Any:
        raise KeyError("gate")

    monkeypatch.setattr(loop, "plan", fail)
    controller = Controller(store, everywhere, clock=lambda: NOW)
    versions = set()
    for _ in range(3):
        with pytest.raises(KeyError):
            await controller.reconcile(KEY)
        versions.add((await store.get(FINETUNERUN, *KEY))["metadata"]["resourceVersion"])
    assert len(versions) == 1
    store.close()
