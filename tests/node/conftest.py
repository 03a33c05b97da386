"""A real node beside a real control plane, shared by all processes of a test run; on it, the operator in its own image.

``FINETUNE_NODE=kind`` takes the cluster that ``python hack/kind up`` started instead. ``FINETUNE_IMAGES`` names archives that are taken
as they are (separated as in ``PATH``), instead of those that ``hack/images`` makes of this checkout. ``FINETUNE_TRAINER`` names the
release of Trainer (2.1, or 2.3).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast, get_args

import pytest

from cluster.conftest import api, cluster, connect, namespace, restricted_namespace  # noqa: F401 - on this control plane
from control_planes import built
from controlplane import sessions
from controlplane.api import eventually
from controlplane.binaries import find
from controlplane.cluster import ControlPlane
from controlplane.programs import GENERATIONS
from deployed import Site, deployed_at
from images import builds
from images.recipes import OPERATOR, STAGES
from kind.cluster import KindCluster
from node import machine, programs
from node.cluster import NodeCluster, default_state


def archives() -> list[Path]:
    """The images of the present sources as archives, which a set-up target built."""
    if given := os.environ.get("FINETUNE_IMAGES"):
        return [Path(one) for one in given.split(os.pathsep)]
    base = os.environ.get("FINETUNE_IMAGE_BASE", "debian")
    if base not in get_args(builds.Base):
        pytest.fail(f"FINETUNE_IMAGE_BASE: {base} is not one of {', '.join(get_args(builds.Base))}", pytrace=False)
    return [built(partial(builds.find, recipe, cast("builds.Base", base), "test")).archive for recipe in (OPERATOR, STAGES)]


@pytest.fixture(scope="session")
def machine_for_nodes() -> None:
    """Skips where no node can run: all tests with one reason, which the last lines of the run show."""
    if (blocker := machine.blocker()) is not None:
        pytest.skip(blocker)


@pytest.fixture(scope="session", params=[os.environ.get("FINETUNE_TRAINER", "2.1")])
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A control plane with a node."""
    if os.environ.get("FINETUNE_NODE") == "kind":
        yield KindCluster.running(request.param)
        return
    request.getfixturevalue("machine_for_nodes")
    plane, worker = NodeCluster(default_state(request.param)), "PYTEST_XDIST_WORKER" in os.environ
    user = os.getppid() if worker else os.getpid()
    binaries = built(partial(find, GENERATIONS[request.param]))
    built(programs.find)
    sessions.join(plane, binaries, request.param, user)
    yield plane
    if not worker:  # another worker may need it yet; it ends with the run
        sessions.leave(plane, user)


@pytest.fixture
def own_node(control_plane: ControlPlane) -> NodeCluster:
    """The node, for tests that look behind it."""
    if not isinstance(control_plane, NodeCluster):
        pytest.skip("this looks into the node's own folder, which kind keeps in a container")
    return control_plane


@pytest.fixture(scope="session")
def site(control_plane: NodeCluster | KindCluster, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The operator as a Deployment in a namespace of its own, with the rights that its manifests give it, and a hub."""
    for archive in archives():
        control_plane.provide(archive)
    with control_plane.api() as calls:
        name = f"t{uuid.uuid4().hex[:10]}"
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        calls.create(manifest)
        eventually(lambda: calls.get("v1", "ServiceAccount", "default", name) != {}, f"namespace {name} has a ServiceAccount")
        with deployed_at(control_plane, calls, name, tmp_path_factory.mktemp("site"), tiny_model) as site:
            yield site
        calls.delete(manifest)
