"""Watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from contract_objects import Maker
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN
from finetune_operator.loop.cluster import Cluster, WatchEvent

_PATIENCE = 20.0


class Seen:
    """The events of a watch, without bookmarks."""

    def __init__(self, changes: Any) -> None:
        self._changes = changes

    async def next(self) -> WatchEvent:
        async with asyncio.timeout(_PATIENCE):
            while True:
                event: WatchEvent = await anext(self._changes)
                if event.type != "BOOKMARK":
                    return event

    async def words(self, count: int) -> list[tuple[str, str]]:
        changes = [await self.next() for _ in range(count)]
        return [(change.type, change.object["metadata"]["name"].rpartition("-")[2]) for change in changes]


@asynccontextmanager
async def watching(cluster: Cluster, make: Maker, **how: Any) -> AsyncIterator[Seen]:
    """A watch of the test's ConfigMaps from now on."""
    if "resource_version" not in how:
        how["resource_version"] = (await cluster.list(CONFIGMAP, "default", labels=make.labels)).resource_version
    async with aclosing(cluster.watch(how.pop("kind", CONFIGMAP), "default", labels=make.labels, **how)) as changes:  # type: ignore[type-var]
        yield Seen(changes)


async def test_a_watch_reports_every_change_in_order(cluster: Cluster, make: Maker) -> None:
    async with watching(cluster, make) as seen:
        created = await cluster.create(make.config_map())
        patched = await cluster.patch(CONFIGMAP, "default", make.name(), {"data": {"key": "other"}})
        await cluster.delete(CONFIGMAP, "default", make.name())
        added, modified, deleted = [await seen.next() for _ in range(3)]
    assert (added.type, added.object) == ("ADDED", created)
    assert (modified.type, modified.object) == ("MODIFIED", patched)
    assert (deleted.type, deleted.object["metadata"]["uid"]) == ("DELETED", created["metadata"]["uid"])
    versions = [int(change.object["metadata"]["resourceVersion"]) for change in (added, modified, deleted)]
    assert versions == sorted(set(versions))


async def test_a_watch_continues_where_another_ended(cluster: Cluster, make: Maker) -> None:
    created = await cluster.create(make.config_map("a"))
    await cluster.create(make.config_map("b"))
    await cluster.delete(CONFIGMAP, "default", make.name("a"))
    async with watching(cluster, make, resource_version=created["metadata"]["resourceVersion"]) as seen:
        assert await seen.words(2) == [("ADDED", "b"), ("DELETED", "a")]


async def test_without_a_version_the_present_objects_come_first(cluster: Cluster, make: Maker) -> None:
    for suffix in "ab":
        await cluster.create(make.config_map(suffix))
    async with watching(cluster, make, resource_version=None) as seen:
        assert sorted(await seen.words(2)) == [("ADDED", "a"), ("ADDED", "b")]
        await cluster.create(make.config_map("c"))
        assert await seen.words(1) == [("ADDED", "c")]


async def test_a_patch_without_a_change_is_not_reported(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.config_map())
    async with watching(cluster, make) as seen:
        await cluster.patch(CONFIGMAP, "default", make.name(), {"data": {"key": "value"}})
        await cluster.create(make.config_map("last"))
        assert await seen.words(1) == [("ADDED", "last")]


async def test_labels_that_are_added_and_removed(cluster: Cluster, make: Maker) -> None:
    manifest = make.config_map()
    manifest["metadata"]["labels"] = {}
    async with watching(cluster, make) as seen:
        await cluster.create(manifest)
        await cluster.patch(CONFIGMAP, "default", make.name(), {"metadata": {"labels": make.labels}})
        await cluster.patch(CONFIGMAP, "default", make.name(), {"data": {"key": "other"}})
        await cluster.patch(CONFIGMAP, "default", make.name(), {"metadata": {"labels": None}})
        await cluster.delete(CONFIGMAP, "default", make.name())
        await cluster.create(make.config_map("last"))
        told = [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "last")]
        assert await seen.words(4) == told


async def test_status_is_a_change(cluster: Cluster, make: Maker) -> None:
    created = await cluster.create(make.run())
    async with watching(cluster, make, kind=FINETUNERUN, resource_version=created["metadata"]["resourceVersion"]) as seen:
        await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {"phase": "Training"}})
        assert (await seen.next()).object["status"]["phase"] == "Training"


async def test_many_watchers_see_the_same(cluster: Cluster, make: Maker) -> None:
    async with watching(cluster, make) as one, watching(cluster, make) as other:
        for number in range(20):
            await cluster.create(make.config_map(str(number)))
        expected = [("ADDED", str(number)) for number in range(20)]
        assert await one.words(20) == expected
        assert await other.words(20) == expected


async def test_a_large_object_is_complete(cluster: Cluster, make: Maker) -> None:
    text = "ü" * 200_000
    async with watching(cluster, make) as seen:
        await cluster.create(make.config_map(data={"key": text}))
        assert (await seen.next()).object["data"]["key"] == text


async def test_a_quiet_watch_stays_open(cluster: Cluster, make: Maker) -> None:
    async with watching(cluster, make) as seen:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(seen.next(), 1.0)
