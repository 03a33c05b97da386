"""What the file holds after a process died at any instant, and what two processes see of each other."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from finetune_operator.api.kinds import CONFIGMAP, JOB
from finetune_operator.local.store import Store, StoreError
from finetune_operator.local.store.database import RETAINED_EVENTS
from finetune_operator.loop.errors import AlreadyExists, Gone, Timeout

WRITER = Path(__file__).with_name("store_writer.py")
KILLS = 6


def config_map(name: str = "a", **fields: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **fields}


def _kill_a_writer(path: Path, after: int, delay: float) -> int:
    """Start a writer, kill it some time after so many acknowledged writes; return the last acknowledged write."""
    with subprocess.Popen([sys.executable, WRITER, path, "inf"], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(after)]
        try:
            writer.wait(delay)
        except subprocess.TimeoutExpired:
            writer.kill()
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return int([line for line in lines if line.endswith("\n")][-1])


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


async def test_kill_9_loses_nothing_and_tears_nothing(tmp_path: Path) -> None:
    path, chance = tmp_path / "store.db", random.Random(9)
    for _ in range(KILLS):
        acknowledged = _kill_a_writer(path, chance.randint(5, 60), chance.random() * 0.05)
        with sqlite3.connect(path) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        raw.close()
        store = Store(path)
        page = await store.list(CONFIGMAP, "default")
        objects = {item["metadata"]["name"]: item for item in page.items}
        data = objects.pop("counter")["data"]
        assert data["count"] == data["again"], "a write is whole or not there"
        assert int(data["count"]) in (acknowledged, acknowledged + 1)
        versions = [int(item["metadata"]["resourceVersion"]) for item in page.items]
        assert max(versions) <= int(page.resource_version)
        # An owner and its child go in one transaction: a child is never left behind.
        assert all(name.replace("child", "owner") in objects for name in objects if name.startswith("child"))
        for name in objects:
            if name.startswith("owner"):
                await store.delete(CONFIGMAP, "default", name)
        assert [item["metadata"]["name"] for item in (await store.list(CONFIGMAP)).items] == ["counter"]
        store.close()


async def test_versions_continue_after_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path / "store.db")
    created = await first.create(config_map())
    await first.delete(CONFIGMAP, "default", "a")
    first.close()
    second = Store(tmp_path / "store.db")
    again = await second.create(config_map())
    second.close()
    assert int(again["metadata"]["resourceVersion"]) == int(created["metadata"]["resourceVersion"]) + 2


async def test_a_watch_survives_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path / "store.db")
    version = (await first.create(config_map()))["metadata"]["resourceVersion"]
    await first.create(config_map("b"))
    first.close()
    second = Store(tmp_path / "store.db")
    async with aclosing(second.watch(CONFIGMAP, resource_version=version)) as changes:
        assert (await anext(changes)).object["metadata"]["name"] == "b"
    second.close()


async def test_another_process_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    here = Store(path)
    version = (await here.list(CONFIGMAP)).resource_version
    async with aclosing(here.watch(CONFIGMAP, resource_version=version)) as changes:
        first = asyncio.ensure_future(anext(changes))
        writer = await asyncio.create_subprocess_exec(sys.executable, WRITER, path, "3", stdout=subprocess.DEVNULL)
        change = await asyncio.wait_for(first, 20)
        assert await writer.wait() == 0
    assert (change.type, change.object["metadata"]["name"]) == ("ADDED", "counter")
    here.close()


async def test_two_writers_take_turns(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "store.db"), Store(tmp_path / "store.db")
    await one.create(config_map(data={"one": "0", "other": "0"}))
    for number in range(50):
        await one.patch(CONFIGMAP, "default", "a", {"data": {"one": str(number)}})
        await other.patch(CONFIGMAP, "default", "a", {"data": {"other": str(number)}})
    merged = await one.get(CONFIGMAP, "default", "a")
    assert merged["data"] == {"one": "49", "other": "49"}
    assert merged == await other.get(CONFIGMAP, "default", "a")
    one.close()
    other.close()


async def test_a_held_file_is_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.local.store.database._LOCK_SECONDS", 0.05)
    store = Store(tmp_path / "store.db")
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Timeout, match="another process has locked the file"):
        await store.create(config_map())
    holder.execute("ROLLBACK")
    await store.create(config_map())
    holder.close()
    store.close()


async def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    version = (await store.list(CONFIGMAP)).resource_version
    await store.create(config_map())
    with pytest.raises(AlreadyExists):
        await store.create(config_map())
    assert int((await store.list(CONFIGMAP)).resource_version) == int(version) + 1
    store.close()


async def test_the_log_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = Store(path)
    first = (await store.create(config_map()))["metadata"]["resourceVersion"]
    sizes = []
    for round_ in range(4):
        for number in range(RETAINED_EVENTS):
            await store.patch(CONFIGMAP, "default", "a", {"data": {"key": f"{round_}.{number}".ljust(200)}})
        sizes.append(_size(tmp_path))
    assert sizes[3] < sizes[1] * 1.5
    async with aclosing(store.watch(CONFIGMAP, resource_version=first)) as changes:
        with pytest.raises(Gone, match="too old resource version") as rejection:
            await anext(changes)
    assert rejection.value.code == 410
    version = (await store.get(CONFIGMAP, "default", "a"))["metadata"]["resourceVersion"]
    recent = str(int(version) - RETAINED_EVENTS)
    async with aclosing(store.watch(CONFIGMAP, resource_version=recent)) as changes:
        assert (await anext(changes)).object["metadata"]["resourceVersion"] == str(int(recent) + 1)
    store.close()


async def test_a_watch_of_a_quiet_kind_does_not_grow_old(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    quiet = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {}}
    async with aclosing(store.watch(CONFIGMAP, labels={"never": "x"}, bookmark_seconds=0.01)) as changes:
        assert (await anext(changes)).type == "BOOKMARK"
        await store.create(quiet)
        for number in range(RETAINED_EVENTS + 10):
            await store.patch_status(JOB, "default", "a", {"status": {"active": number}})
            if number % 100 == 0:
                assert (await anext(changes)).type == "BOOKMARK"
        assert (await anext(changes)).type == "BOOKMARK"
    store.close()


async def test_a_version_of_another_file_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    async with aclosing(store.watch(CONFIGMAP, resource_version="4711")) as changes:
        with pytest.raises(Gone):
            await anext(changes)
    store.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    Store(tmp_path / "sub" / "store.db").close()
    assert (tmp_path / "sub" / "store.db").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("This is a text, and no database at all. " * 100)
    with pytest.raises(StoreError, match=f"{path}: not usable as the object store .*; move the file away"):
        Store(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="move the file away"):
        Store(tmp_path / "file" / "store.db")


def test_a_file_of_a_later_release(tmp_path: Path) -> None:
    Store(tmp_path / "store.db").close()
    with sqlite3.connect(tmp_path / "store.db") as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StoreError, match="written by a later release of finetune; install that release"):
        Store(tmp_path / "store.db")
