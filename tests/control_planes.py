"""The real control planes that tests run on: one for each release of Trainer, shared by all processes of a test run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import aiohttp
import pytest

from controlplane import sessions
from controlplane.binaries import CannotBuildError, build, go_is_installed
from controlplane.certificates import Pair
from controlplane.cluster import ControlPlane
from controlplane.programs import GENERATIONS, GenerationName
from finetune_operator.kube.client import ApiServer


def skip_without_go() -> None:
    """Skip the test that asks: all of them have one reason, and one line in the summary."""
    if not go_is_installed():
        pytest.skip("go is not installed: no control plane can be built")


def build_before_tests(session: pytest.Session, wanted: Iterable[GenerationName]) -> None:
    """Build what the collected tests need, while no test's time is running. What cannot be built fails the tests themselves."""
    if go_is_installed() and not session.config.option.collectonly:
        for generation in sorted(set(wanted)):
            with suppress(CannotBuildError):
                build(GENERATIONS.get(generation))


@contextmanager
def shared(generation: GenerationName) -> Iterator[ControlPlane]:
    """The control plane of this test run. A worker of xdist uses it in the name of the process that leads the run."""
    skip_without_go()
    plane, worker = ControlPlane(sessions.default_state(generation)), "PYTEST_XDIST_WORKER" in os.environ
    user = os.getppid() if worker else os.getpid()
    sessions.join(plane, build(GENERATIONS.get(generation)), generation, user)
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
