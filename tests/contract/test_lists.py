"""Lists and pages."""

from __future__ import annotations

import pytest

from contract_objects import Maker
from finetune_operator.api.kinds import CONFIGMAP, EVENT, FINETUNERUN, Kind
from finetune_operator.loop.cluster import Cluster, Page
from finetune_operator.loop.errors import Gone, Invalid


def names(page: Page) -> list[str]:
    return [item["metadata"]["name"] for item in page.items]


@pytest.mark.parametrize("kind", [FINETUNERUN, CONFIGMAP])
async def test_a_list_contains_whole_objects(cluster: Cluster, make: Maker, kind: Kind) -> None:
    manifest = make.run() if kind == FINETUNERUN else make.config_map()
    created = await cluster.create(manifest)
    page = await cluster.list(kind, "default", labels=make.labels)
    assert page.items == [created]
    assert int(page.resource_version) >= int(created["metadata"]["resourceVersion"])
    assert page.continue_ is None


async def test_an_empty_list(cluster: Cluster, make: Maker) -> None:
    page = await cluster.list(FINETUNERUN, "default", labels=make.labels)
    assert (page.items, page.continue_) == ([], None)
    assert int(page.resource_version) >= 0


async def test_labels_select(cluster: Cluster, make: Maker) -> None:
    for suffix, labels in (("a", {"color": "red"}), ("b", {"color": "red", "size": "big"}), ("c", {})):
        manifest = make.config_map(suffix)
        manifest["metadata"]["labels"] |= labels
        await cluster.create(manifest)
    assert names(await cluster.list(CONFIGMAP, "default", labels={**make.labels, "color": "red"})) == [
        make.name("a"),
        make.name("b"),
    ]
    assert names(await cluster.list(CONFIGMAP, "default", labels={**make.labels, "color": "red", "size": "big"})) == [
        make.name("b")
    ]
    assert names(await cluster.list(CONFIGMAP, labels=make.labels)) == [make.name(suffix) for suffix in "abc"]
    assert names(await cluster.list(CONFIGMAP, "kube-system", labels=make.labels)) == []


async def test_fields_select(cluster: Cluster, make: Maker) -> None:
    for suffix, uid, type_ in (("a", "1", "Warning"), ("b", "1", "Normal"), ("c", "2", "Warning")):
        about = {"apiVersion": "batch/v1", "kind": "Job", "name": "job", "namespace": "default", "uid": uid}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": make.config_map(suffix)["metadata"], "involvedObject": about}
        await cluster.create({**event, "reason": "Told", "message": "x", "type": type_})
    found = await cluster.list(EVENT, "default", labels=make.labels, fields={"involvedObject.uid": "1", "type": "Warning"})
    assert names(found) == [make.name("a")]
    assert names(await cluster.list(EVENT, "default", fields={"metadata.name": make.name("c")})) == [make.name("c")]
    with pytest.raises(Invalid, match="field label not supported: message"):
        await cluster.list(EVENT, "default", fields={"message": "x"})


async def test_pages_are_of_one_snapshot(cluster: Cluster, make: Maker) -> None:
    for suffix in "abcde":
        await cluster.create(make.config_map(suffix))
    first = await cluster.list(CONFIGMAP, "default", labels=make.labels, limit=2)
    await cluster.create(make.config_map("ab"))
    await cluster.delete(CONFIGMAP, "default", make.name("d"))
    second = await cluster.list(CONFIGMAP, "default", labels=make.labels, limit=2, continue_=first.continue_)
    third = await cluster.list(CONFIGMAP, "default", labels=make.labels, limit=2, continue_=second.continue_)
    assert [names(page) for page in (first, second, third)] == [
        [make.name("a"), make.name("b")], [make.name("c"), make.name("d")], [make.name("e")],
    ]  # fmt: skip
    assert third.continue_ is None
    assert first.resource_version == second.resource_version == third.resource_version


async def test_an_invalid_continuation(cluster: Cluster, make: Maker) -> None:
    with pytest.raises((Invalid, Gone)):
        await cluster.list(CONFIGMAP, "default", labels=make.labels, limit=2, continue_="nonsense")
