"""The real control planes that tests run on: one for each release of Trainer, shared by all processes of a test run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import aiohttp
import pytest

from controlplane import sessions
from controlplane.binaries import NotBuiltError, find, go_is_installed
from controlplane.certificates import Pair
from controlplane.cluster import ControlPlane
from controlplane.programs import GENERATIONS, GenerationName
from finetune_operator.kube.client import ApiServer

Found = TypeVar("Found")


def skip_without_go() -> None:
    """Skip the test that asks: all of them have one reason, and one line in the summary."""
    if not go_is_installed():
        pytest.skip("go is not installed: no control plane can be built")


def built(find_it: Callable[[], Found]) -> Found:
    """Return what a set-up target built; fail with the sentence that names the target where it is not there."""
    try:
        return find_it()
    except NotBuiltError as error:
        sentence = str(error)
    pytest.fail(sentence, pytrace=False)  # outside of the handler, or the sentence would be printed twice


@contextmanager
def shared(generation: GenerationName) -> Iterator[ControlPlane]:
    """The control plane of this test run. A worker of xdist uses it in the name of the process that leads the run."""
    skip_without_go()
    plane, worker = ControlPlane(sessions.default_state(generation)), "PYTEST_XDIST_WORKER" in os.environ
    user = os.getppid() if worker else os.getpid()
    sessions.join(plane, built(lambda: find(GENERATIONS.get(generation))), generation, user)
    yield plane
    if not worker:  # another worker may need it yet; it ends with the run
        sessions.leave(plane, user)


@asynccontextmanager
async def connected(plane: ControlPlane, client: Pair | None = None, token: str | None = None) -> AsyncIterator[ApiServer]:
    """The operator's client, as whoever holds ``client`` or ``token``, or as administrator."""
    access = plane.access
    assert access is not None
    async with aiohttp.ClientSession() as session:
        tls = plane.authority.tls(client or (None if token else plane.admin))
        yield ApiServer(session, access.address, tls=tls, token=None if token is None else lambda: token)
