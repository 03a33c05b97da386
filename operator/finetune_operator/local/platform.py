"""Local mode: store, kubelet, workload controllers and control loop in one process, with one folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from finetune_operator import __version__
from finetune_operator.api.kinds import CLAIM, CONFIGMAP
from finetune_operator.core.images import OF_JOBS
from finetune_operator.core.settings import Allowed, Machine, Settings
from finetune_operator.loop.cluster import Cluster
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import AlreadyExists, NotFound
from finetune_operator.training_bundle import training_bundle
from finetune_operator.validation import DEFAULTS, defaults_of

from .home import Home
from .kubelet import ProcessKubelet
from .machine import Capacity, inspect_machine
from .pod_worker import Node
from .store import Store
from .volumes import SecretSource, Volumes
from .workload_controller import WorkloadController

NAMESPACE = "default"
WORKSPACE_CLAIM = "workspace"
"""The default PersistentVolumeClaim of local runs; they share its cache."""
PROGRESS_SECONDS = 0.5
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Platform:
    """The running parts of local mode."""

    home: Home
    store: Store
    controller: Controller
    kubelet: ProcessKubelet
    settings: Settings


def local_settings(home: Home, machine: Machine, *, allow_code: bool = False) -> Settings:
    """Return the settings of the control loop for this machine. ``allow_code``: task files of runs that start now may have code."""
    bundle = training_bundle()
    threads = str(max(1, machine.cpus // 2))  # the baseline is measured while training runs
    gpus = {"evaluation": {"gpus": 1}} if machine.gpus else {}
    return Settings(
        mode="local", operator_version=__version__, images=dict.fromkeys(OF_JOBS, f"local:{__version__}"),
        bundle_digest=bundle.digest, bundle_archive=bundle.archive, machine=machine,
        operator_defaults={"storage": {"claimName": WORKSPACE_CLAIM}, **gpus},
        environment={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads), "TOKENIZERS_PARALLELISM": "false"},
        volume_uri=f"file://{home.volumes}/{NAMESPACE}/{{claim}}", local_registry=True, retry_seconds=RETRY_SECONDS,
        progress_seconds=PROGRESS_SECONDS, allowed=Allowed(task_code=allow_code),
    )  # fmt: skip


async def with_defaults(settings: Settings, cluster: Cluster, namespace: str) -> Settings:
    """Return the settings with the defaults of a namespace, which are in a ConfigMap as on a cluster."""
    try:
        configmap = await cluster.get(CONFIGMAP, namespace, DEFAULTS)
    except NotFound:
        return settings
    defaults = defaults_of(configmap, settings.mode)
    return replace(settings, namespace_defaults=defaults.values, problem=defaults.problem)


def open_store(home: Home) -> Store:
    """Return the object store of a folder, with the logs of its processes."""
    return Store(home.store, log_file=lambda pod, _container: home.pods / pod["metadata"]["uid"] / "log")


@asynccontextmanager
async def local_platform(
    home: Home, secrets: SecretSource, machine: Machine | None = None, *, allow_code: bool = False
) -> AsyncIterator[Platform]:
    """Drive the runs of ``home`` inside this context; at its end, stop their processes so that they can continue later.

    ``allow_code``: see :func:`local_settings`.

    Raises:
        HomeInUse: another command drives the runs of this folder.
        HomeUnusable: the folder cannot be created or written.
    """
    home.prepare()
    with home.locked():
        machine = machine or inspect_machine()
        store = open_store(home)
        try:
            await _ensure_claim(store)
            node = Node(store, home.pods, Volumes(store, home.volumes), Capacity(machine), secrets)
            settings = local_settings(home, machine, allow_code=allow_code)

            async def settings_of(namespace: str) -> Settings:
                return await with_defaults(settings, store, namespace)

            controller = Controller(store, settings_of, clock=lambda: datetime.now(UTC))
            kubelet = ProcessKubelet(node)
            async with kubelet.running(), WorkloadController(store).running(), controller.running(workers=4):
                yield Platform(home, store, controller, kubelet, settings)
        finally:
            store.close()


async def _ensure_claim(store: Store) -> None:
    claim = {
        "apiVersion": CLAIM.api_version, "kind": CLAIM.name,
        "metadata": {"name": WORKSPACE_CLAIM, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }  # fmt: skip
    try:
        await store.create(claim)
    except AlreadyExists:
        return


def workspace_folder(home: Home, claim: str = WORKSPACE_CLAIM) -> Path:
    """Return the folder of a PersistentVolumeClaim."""
    return home.volumes / NAMESPACE / claim
