"""The clusters of the contract tests: the embedded store, and the client with the store's HTTP server and with a real API server."""

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
"""Any release works. Other tests start this one as well."""


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server."""
    with shared(_TRAINER) as plane:
        yield plane


@pytest.fixture(params=["store", "http", "apiserver"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster. The real one may have objects of other tests."""
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
    """Creates the objects of a test, and removes them at its end."""
    maker = Maker(cluster)
    yield maker
    await maker.clean()
