"""Digests of ConfigMaps: each version is read once."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.core.manifests.children import bundle_configmap, content_digest
from finetune_operator.local.store import Store
from finetune_operator.loop import contents
from finetune_operator.loop.contents import ConfigMapContents
from finetune_operator.loop.errors import NotFound
from finetune_operator.training_bundle import bundle_digest, training_bundle

PLAIN: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "t"},
    "immutable": True,
    "data": {"a": "1"},
}


class Counting:
    """A cluster that counts how often a ConfigMap is read whole."""

    def __init__(self, inner: Store) -> None:
        self.inner, self.gets = inner, 0

    def __getattr__(self, name: str) -> Any:
        self.gets += name == "get"
        return getattr(self.inner, name)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Counting]:
    store = Store(tmp_path / "store.db")
    yield Counting(store)
    store.close()


async def test_a_configmap_is_read_once_and_again_when_it_is_another(cluster: Counting) -> None:
    cache = ConfigMapContents()
    with pytest.raises(NotFound):
        await cache.read(cluster, "t", "c")
    await cluster.create(PLAIN)
    for _ in range(2):
        item, digest = await cache.read(cluster, "t", "c")
        assert list(item) == ["metadata"]
        assert digest == content_digest(PLAIN)
    assert cluster.gets == 1
    await cluster.delete(contents.CONFIGMAP, "t", "c")
    other = {**PLAIN, "data": {"a": "2"}}
    await cluster.create(other)
    assert (await cache.read(cluster, "t", "c"))[1] == content_digest(other)
    assert cluster.gets == 2


async def test_one_that_can_be_changed_has_no_digest(cluster: Counting) -> None:
    """Neither has a training bundle: the pods may mount another content than the one that was read."""
    entry = training_bundle()
    cache = ConfigMapContents()
    for manifest in (PLAIN, bundle_configmap("t", entry.digest, entry.archive)):
        cache.remember(await cluster.create({**manifest, "immutable": False}))
        assert (await cache.read(cluster, "t", manifest["metadata"]["name"]))[1] == ""


async def test_one_that_was_just_created_is_not_read_at_all(cluster: Counting) -> None:
    cache = ConfigMapContents()
    cache.remember(await cluster.create(PLAIN))
    assert (await cache.read(cluster, "t", "c"))[1] == content_digest(PLAIN)
    assert cluster.gets == 0


async def test_no_more_than_enough_is_remembered(cluster: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_LIMIT", 2)
    cache = ConfigMapContents()
    for name in "abc":
        cache.remember(await cluster.create({**PLAIN, "metadata": {"name": name, "namespace": "t"}}))
    await cache.read(cluster, "t", "c")
    assert cluster.gets == 0
    await cache.read(cluster, "t", "a")
    assert cluster.gets == 1


async def test_a_training_bundle_is_known_by_its_files(cluster: Counting) -> None:
    entry = training_bundle()
    assert bundle_digest(entry.archive) == entry.digest
    assert bundle_digest(stored_without_compression(entry.archive)) == entry.digest, "another zip library"
    cache = ConfigMapContents()
    bundle = bundle_configmap("t", entry.digest, entry.archive)
    cache.remember(await cluster.create(bundle))
    assert (await cache.read(cluster, "t", bundle["metadata"]["name"]))[1] == entry.digest


def stored_without_compression(archive: str) -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return base64.b64encode(buffer.getvalue()).decode()


def large() -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(65 << 20))
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("archive", ["", base64.b64encode(b"no archive").decode(), large()], ids=str.__len__)
async def test_what_is_no_training_bundle_is_not_taken_for_one(cluster: Counting, archive: str) -> None:
    assert bundle_digest(archive) is None
    assert bundle_digest("no base64!") is None, "the API server rejects it, too"
    bundle = bundle_configmap("t", "e" * 64, archive)
    cache = ConfigMapContents()
    cache.remember(await cluster.create(bundle))
    assert (await cache.read(cluster, "t", bundle["metadata"]["name"]))[1] == content_digest(bundle)


async def test_a_bundle_with_something_beside_it_is_another_one(cluster: Counting) -> None:
    entry = training_bundle()
    bundle = {**bundle_configmap("t", entry.digest, entry.archive), "data": {"sitecustomize.py": "import os"}}
    cache = ConfigMapContents()
    cache.remember(await cluster.create(bundle))
    assert (await cache.read(cluster, "t", bundle["metadata"]["name"]))[1] != entry.digest
