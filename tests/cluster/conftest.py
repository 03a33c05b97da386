"""A real control plane for each release of Trainer; a namespace of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from control_planes import connected, shared
from controlplane.api import Api, eventually
from controlplane.cluster import ControlPlane
from controlplane.programs import GENERATIONS
from finetune_operator.kube.client import ApiServer

Connect = Callable[..., AbstractAsyncContextManager[ApiServer]]


@pytest.fixture(scope="session", params=list(GENERATIONS))
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A control plane with one release of Trainer; ``parametrize(..., indirect=True)`` chooses which."""
    with shared(request.param) as plane:
        yield plane


@pytest.fixture
def generation(control_plane: ControlPlane) -> str:
    """The release of Trainer."""
    access = control_plane.access
    assert access is not None
    return access.trainer


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """Calls as administrator, on any kind of object."""
    with control_plane.api() as api:
        yield api


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own."""
    yield from _namespace(api, {})


@pytest.fixture
def restricted_namespace(api: Api) -> Iterator[str]:
    """A namespace that takes only pods of the restricted pod security standard, as OpenShift's do."""
    yield from _namespace(api, {"pod-security.kubernetes.io/enforce": "restricted"})


@pytest.fixture
def connect(control_plane: ControlPlane) -> Connect:
    """The operator's client as anybody: ``connect(client=...)`` by certificate, ``connect(token=...)`` by token."""
    return partial(connected, control_plane)


@pytest.fixture
async def cluster(connect: Connect) -> AsyncIterator[ApiServer]:
    """The operator's client, as administrator."""
    async with connect() as client:
        yield client


def _namespace(api: Api, labels: dict[str, str]) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:10]}"
    manifest: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    api.create(manifest)
    # A pod needs it, and a controller makes it in its own time.
    eventually(lambda: api.get("v1", "ServiceAccount", "default", name) != {}, f"namespace {name} has a ServiceAccount")
    yield name
    api.delete(manifest)
