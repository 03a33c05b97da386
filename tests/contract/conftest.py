"""The clusters that the contract suite runs on: the embedded store, the client on the store's HTTP face, and on a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from api_server import application, serving
from contract_objects import Maker
from control_planes import connected, shared
from controlplane.cluster import ControlPlane
from finetune_operator.kube.client import ApiServer
from finetune_operator.local.store import Store
from finetune_operator.loop.cluster import Cluster

_TRAINER: Final = "2.1"
"""Any would do: it is one that other tests start anyway."""


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """The real one."""
    with shared(_TRAINER) as plane:
        yield plane


@pytest.fixture(params=["store", "http", "apiserver"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster, empty but for what others left on the real one."""
    async with AsyncExitStack() as stack:
        if request.param == "apiserver":
            yield await stack.enter_async_context(connected(request.getfixturevalue("control_plane")))
            return
        store = Store(tmp_path / "store.db")
        stack.callback(store.close)
        if request.param == "store":
            yield store
            return
        address = await stack.enter_async_context(serving(application(store, token="sesame", bookmark_seconds=0.2)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield ApiServer(session, address, token=lambda: "sesame")


@pytest.fixture
async def make(cluster: Cluster) -> AsyncIterator[Maker]:
    """What makes the objects of a test, and removes them."""
    maker = Maker(cluster)
    yield maker
    await maker.clean()
