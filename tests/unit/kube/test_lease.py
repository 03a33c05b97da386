"""Leader election on the embedded store, and what happens when the leader disappears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import LEASE
from finetune_operator.kube.lease import Lease, LeaseLost, Timing
from finetune_operator.local.store import Store
from finetune_operator.loop.errors import Transient

QUICK = Timing(duration=1, renew_deadline=0.5, retry=0.05)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


class Broken:
    """A store that can be cut off."""

    def __init__(self, store: Store) -> None:
        self._store, self.down = store, False

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.down:
                raise Transient("no route to host")
            return getattr(self._store, name)(*arguments, **options)

        return call


def candidate(store: Any, name: str) -> Lease:
    return Lease(store, "ours", "operator", name, timing=QUICK)


async def holder(store: Store) -> str:
    return str((await store.get(LEASE, "ours", "operator"))["spec"]["holderIdentity"])


async def test_the_next_candidate_starts_at_once_when_the_leader_ends(store: Store) -> None:
    order = []

    async def work(name: str, seconds: float) -> None:
        async with candidate(store, name).held():
            order.append((name, "begins"))
            await asyncio.sleep(seconds)
            order.append((name, "ends"))

    first = asyncio.create_task(work("a", 0.3))
    while not order:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    await asyncio.gather(first, work("b", 0))
    assert order == [("a", "begins"), ("a", "ends"), ("b", "begins"), ("b", "ends")]
    assert time.monotonic() - began < QUICK.duration, "nobody waited for the lease to run out"
    assert await holder(store) == ""
    assert (await store.get(LEASE, "ours", "operator"))["spec"]["leaseTransitions"] == 1


async def test_the_next_candidate_starts_when_the_lease_of_a_lost_leader_expires(store: Store) -> None:
    lease = candidate(store, "a")
    assert await lease._try()  # and never renews it
    began = time.monotonic()
    async with candidate(store, "b").held():
        assert time.monotonic() - began >= QUICK.duration
        assert await holder(store) == "b"


async def test_a_leader_that_renews_keeps_the_lease(store: Store) -> None:
    async with candidate(store, "a").held():
        other = candidate(store, "b")
        for _ in range(30):
            assert not await other._try()
            await asyncio.sleep(QUICK.duration / 20)
        assert await holder(store) == "a"


async def test_a_leader_that_cannot_renew_loses_the_lease(store: Store) -> None:
    wire = Broken(store)
    async with candidate(wire, "a").held() as renewing:
        wire.down = True
        began = time.monotonic()
        with pytest.raises(LeaseLost, match=r"lease ours/operator: not renewed for 0\.5 s"):
            await renewing
        assert time.monotonic() - began < QUICK.duration, "before another one may begin"


async def test_a_candidate_that_loses_the_race_waits(store: Store) -> None:
    taken = await asyncio.gather(*(candidate(store, name)._try() for name in "abcd"))
    assert sorted(taken) == [False, False, False, True]
