"""The clusters that the contract suite runs on: the embedded store, and the client on the store's HTTP face.

A real API server (with its garbage collector) is the third where ``FINETUNE_TEST_API_SERVER`` is its address and
``FINETUNE_TEST_API_TOKEN`` a token of an administrator; the resource's definition must be installed there.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from contract_objects import Maker
from finetune_operator.kube.client import ApiServer
from finetune_operator.local.api_server import application, serving
from finetune_operator.local.store import Store
from finetune_operator.loop.cluster import Cluster

SERVER, TOKEN = os.environ.get("FINETUNE_TEST_API_SERVER"), os.environ.get("FINETUNE_TEST_API_TOKEN", "")


@pytest.fixture(params=["store", "http", *(["apiserver"] if SERVER else [])])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster, empty but for what others left on a real one."""
    async with AsyncExitStack() as stack:
        if request.param == "apiserver":
            yield await stack.enter_async_context(_api_server())
            return
        store = Store(tmp_path / "store.db")
        stack.callback(store.close)
        if request.param == "store":
            yield store
            return
        address = await stack.enter_async_context(serving(application(store, token="sesame", bookmark_seconds=0.2)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield ApiServer(session, address, token=lambda: "sesame")


@asynccontextmanager
async def _api_server() -> AsyncIterator[Cluster]:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as session:
        yield ApiServer(session, SERVER or "", token=lambda: TOKEN, tls=unverified)


@pytest.fixture
async def make(cluster: Cluster) -> AsyncIterator[Maker]:
    """What makes the objects of a test, and removes them."""
    maker = Maker(cluster)
    yield maker
    await maker.clean()
