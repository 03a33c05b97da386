"""A node of this machine over a store of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import POD
from finetune_operator.core.settings import Machine
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.machine import Capacity
from finetune_operator.local.pod_worker import Node
from finetune_operator.local.store import Store
from finetune_operator.local.volumes import Volumes
from waiting import eventually

SECRETS: dict[tuple[str, str], str] = {}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    store = Store(tmp_path / "store.db", log_file=lambda pod, _: tmp_path / "pods" / pod["metadata"]["uid"] / "log")
    yield store
    store.close()


@pytest.fixture
def secrets() -> dict[tuple[str, str], str]:
    """Secrets by name and key; a test may add some at any time."""
    return {}


@pytest.fixture
def node(store: Store, tmp_path: Path, secrets: dict[tuple[str, str], str]) -> Node:
    """A machine with two GPUs and 8 GiB of memory."""
    machine = Machine(gpus=2, cpus=2, memory_bytes=8 << 30)
    return Node(
        store,
        tmp_path / "pods",
        Volumes(store, tmp_path / "volumes"),
        Capacity(machine),
        lambda name, key, _endpoint=None: secrets.get((name, key)),
    )


@pytest.fixture
async def kubelet(node: Node) -> AsyncIterator[ProcessKubelet]:
    """The kubelet of that machine, at work."""
    kubelet = ProcessKubelet(node)
    async with kubelet.running():
        yield kubelet


def pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a command."""
    container = {
        "name": "stage", "image": "any", "command": list(command), "terminationMessagePath": "/dev/termination-log",
        **spec.pop("container", {}),
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "team"},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container], **spec},
    }  # fmt: skip


async def ended(store: Store, name: str, seconds: float = 30.0) -> dict[str, Any]:
    """The pod once it has ended."""
    return await eventually(
        lambda: store.get(POD, "team", name),
        lambda found: (found.get("status") or {}).get("phase") in ("Succeeded", "Failed"),
        seconds,
    )


async def in_state(store: Store, name: str, state: str, seconds: float = 30.0) -> dict[str, Any]:
    """The state of the pod's container once it is ``running`` or ``waiting``."""

    async def look() -> dict[str, Any]:
        found = await store.get(POD, "team", name)
        statuses = (found.get("status") or {}).get("containerStatuses") or [{}]
        entry: dict[str, Any] = (statuses[0].get("state") or {}).get(state) or {}
        return entry

    return await eventually(look, bool, seconds)


def terminated(found: dict[str, Any]) -> dict[str, Any]:
    """How the container of an ended pod ended."""
    state: dict[str, Any] = found["status"]["containerStatuses"][0]["state"]["terminated"]
    return state
