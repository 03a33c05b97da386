"""Deletion: preconditions, finalizers, grace periods, and dependents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from contract_objects import Maker
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, POD, Kind
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import Conflict, Invalid, NotFound

_PATIENCE = 30.0
HOLD = {"metadata": {"finalizers": ["contract.test/hold"]}}
RELEASE: Object = {"metadata": {"finalizers": None}}


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for the garbage collector."""
    async with asyncio.timeout(_PATIENCE):
        while not await condition():
            await asyncio.sleep(0.05)


async def is_gone(cluster: Cluster, kind: Kind, name: str) -> bool:
    try:
        await cluster.get(kind, "default", name)
    except NotFound:
        return True
    return False


async def test_a_deleted_object_is_gone(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.run())
    await cluster.delete(FINETUNERUN, "default", make.name())
    assert await is_gone(cluster, FINETUNERUN, make.name())
    again = await cluster.create(make.run())
    assert again["metadata"]["generation"] == 1


async def test_a_uid_is_a_precondition(cluster: Cluster, make: Maker) -> None:
    first = (await cluster.create(make.config_map()))["metadata"]["uid"]
    await cluster.delete(CONFIGMAP, "default", make.name(), uid=first)
    second = (await cluster.create(make.config_map()))["metadata"]["uid"]
    with pytest.raises(Conflict) as rejection:
        await cluster.delete(CONFIGMAP, "default", make.name(), uid=first)
    assert rejection.value.code == 409
    assert not await is_gone(cluster, CONFIGMAP, make.name())
    await cluster.delete(CONFIGMAP, "default", make.name(), uid=second)
    assert await is_gone(cluster, CONFIGMAP, make.name())


async def test_finalizers_delay_a_deletion(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.run())
    await cluster.patch(FINETUNERUN, "default", make.name(), HOLD)
    await cluster.delete(FINETUNERUN, "default", make.name())
    held = await cluster.get(FINETUNERUN, "default", make.name())
    assert held["metadata"]["deletionTimestamp"]
    await cluster.delete(FINETUNERUN, "default", make.name())
    more = {"metadata": {"finalizers": ["contract.test/hold", "contract.test/more"]}}
    with pytest.raises(Invalid) as rejection:
        await cluster.patch(FINETUNERUN, "default", make.name(), more)
    assert {field for field, _ in rejection.value.causes} == {"metadata.finalizers"}
    reported = await cluster.patch_status(FINETUNERUN, "default", make.name(), {"status": {"phase": "Failed"}})
    assert reported["metadata"]["deletionTimestamp"] == held["metadata"]["deletionTimestamp"]
    await cluster.patch(FINETUNERUN, "default", make.name(), RELEASE)
    assert await is_gone(cluster, FINETUNERUN, make.name())


async def test_a_bound_pod_gets_its_grace_period(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod(nodeName="contract-node", terminationGracePeriodSeconds=300))
    await cluster.delete(POD, "default", make.name())
    pod = await cluster.get(POD, "default", make.name())
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 300
    assert pod["metadata"]["deletionTimestamp"] > pod["metadata"]["creationTimestamp"]
    await cluster.delete(POD, "default", make.name(), grace_seconds=0)
    assert await is_gone(cluster, POD, make.name())


async def test_a_grace_period_can_be_shortened(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod(nodeName="contract-node", terminationGracePeriodSeconds=300))
    await cluster.delete(POD, "default", make.name(), grace_seconds=60)
    pod = await cluster.get(POD, "default", make.name())
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 60


async def test_a_pod_without_a_node_is_deleted_at_once(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod())
    await cluster.delete(POD, "default", make.name())
    assert await is_gone(cluster, POD, make.name())


async def test_a_finished_pod_is_deleted_at_once(cluster: Cluster, make: Maker) -> None:
    await cluster.create(make.pod(nodeName="contract-node"))
    await cluster.patch_status(POD, "default", make.name(), {"status": {"phase": "Succeeded"}})
    await cluster.delete(POD, "default", make.name())
    assert await is_gone(cluster, POD, make.name())


@pytest.mark.garbage_collector
async def test_dependents_are_deleted_with_their_owner(cluster: Cluster, make: Maker) -> None:
    owner = await cluster.create(make.run())
    child = await cluster.create(make.owned(make.config_map("child"), owner, controller=True, blockOwnerDeletion=True))
    await cluster.create(make.owned(make.config_map("grandchild"), child))
    await cluster.create(make.config_map("stranger"))
    await cluster.delete(FINETUNERUN, "default", make.name())
    await eventually(lambda: is_gone(cluster, CONFIGMAP, make.name("grandchild")))
    await eventually(lambda: is_gone(cluster, CONFIGMAP, make.name("child")))
    assert not await is_gone(cluster, CONFIGMAP, make.name("stranger"))


@pytest.mark.garbage_collector
async def test_one_remaining_owner_keeps_an_object(cluster: Cluster, make: Maker) -> None:
    one, other = await cluster.create(make.run("one")), await cluster.create(make.run("other"))
    await cluster.create(make.owned(make.config_map("child"), one, other))
    await cluster.delete(FINETUNERUN, "default", make.name("one"))

    async def has_one_owner() -> bool:
        owners = (await cluster.get(CONFIGMAP, "default", make.name("child")))["metadata"]["ownerReferences"]
        return [owner["uid"] for owner in owners] == [other["metadata"]["uid"]]

    await eventually(has_one_owner)
    await cluster.delete(FINETUNERUN, "default", make.name("other"))
    await eventually(lambda: is_gone(cluster, CONFIGMAP, make.name("child")))


@pytest.mark.garbage_collector
async def test_in_the_foreground_the_owner_is_deleted_last(cluster: Cluster, make: Maker) -> None:
    owner = await cluster.create(make.run())
    child = make.owned(make.config_map("child"), owner, controller=True, blockOwnerDeletion=True)
    child["metadata"] |= HOLD["metadata"]
    await cluster.create(child)
    await cluster.delete(FINETUNERUN, "default", make.name(), propagation="Foreground")

    async def child_is_going() -> bool:
        return "deletionTimestamp" in (await cluster.get(CONFIGMAP, "default", make.name("child")))["metadata"]

    await eventually(child_is_going)
    waiting = await cluster.get(FINETUNERUN, "default", make.name())
    assert waiting["metadata"]["deletionTimestamp"]
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    await cluster.patch(CONFIGMAP, "default", make.name("child"), RELEASE)
    await eventually(lambda: is_gone(cluster, FINETUNERUN, make.name()))
    assert await is_gone(cluster, CONFIGMAP, make.name("child"))


@pytest.mark.garbage_collector
async def test_in_the_background_the_owner_does_not_wait(cluster: Cluster, make: Maker) -> None:
    owner = await cluster.create(make.run())
    child = make.owned(make.config_map("child"), owner, controller=True, blockOwnerDeletion=True)
    child["metadata"] |= HOLD["metadata"]
    await cluster.create(child)
    await cluster.delete(FINETUNERUN, "default", make.name(), propagation="Background")
    assert await is_gone(cluster, FINETUNERUN, make.name())

    async def child_is_going() -> bool:
        return "deletionTimestamp" in (await cluster.get(CONFIGMAP, "default", make.name("child")))["metadata"]

    await eventually(child_is_going)


@pytest.mark.garbage_collector
async def test_orphans_are_kept(cluster: Cluster, make: Maker) -> None:
    owner = await cluster.create(make.run())
    await cluster.create(make.owned(make.config_map("child"), owner, controller=True))
    await cluster.delete(FINETUNERUN, "default", make.name(), propagation="Orphan")
    await eventually(lambda: is_gone(cluster, FINETUNERUN, make.name()))
    assert "ownerReferences" not in (await cluster.get(CONFIGMAP, "default", make.name("child")))["metadata"]


@pytest.mark.garbage_collector
async def test_a_dependent_of_a_missing_owner_is_collected(cluster: Cluster, make: Maker) -> None:
    owner = await cluster.create(make.run())
    await cluster.delete(FINETUNERUN, "default", make.name())
    await cluster.create(make.owned(make.config_map("child"), owner))
    await eventually(lambda: is_gone(cluster, CONFIGMAP, make.name("child")))


@pytest.mark.garbage_collector
async def test_a_dependent_of_an_owner_with_another_uid_is_collected(cluster: Cluster, make: Maker) -> None:
    first = await cluster.create(make.run())
    await cluster.delete(FINETUNERUN, "default", make.name())
    await cluster.create(make.run())
    await cluster.create(make.owned(make.config_map("child"), first))
    await eventually(lambda: is_gone(cluster, CONFIGMAP, make.name("child")))
    assert not await is_gone(cluster, FINETUNERUN, make.name())
