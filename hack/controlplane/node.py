"""A node of the control plane that runs containers as processes: the local runner as its kubelet.

Pods are scheduled, bound, started, ended and reported as on any node; only images, networks and mounts are not real: a container
is a process of this machine, ``python`` is this Python, a claim is a folder, and the ranks of a training meet on the loopback
interface. Real exit codes, signals, logs and termination messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from finetune_operator.api.kinds import CLAIM, POD
from finetune_operator.core.settings import Machine
from finetune_operator.core.times import stamp
from finetune_operator.kube.client import ApiServer
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.machine import Capacity
from finetune_operator.local.pod_life import Node
from finetune_operator.local.store.logs import read_log
from finetune_operator.local.volumes import Volumes
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import NotFound
from finetune_operator.loop.watch import changes

from .api import Api, RefusedError
from .certificates import Pair

NAME = "processes"
_NODE: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": {"kubernetes.io/hostname": NAME}}}
_BEAT_SECONDS = 5.0
_FIRST_PORT, _PORTS = 20000, 9000


@contextlib.asynccontextmanager
async def process_node(
    server: ApiServer, api: Api, folder: Path, serving: Pair, machine: Machine | None = None
) -> AsyncIterator[None]:
    """Inside this context the cluster has a node, pods run on it, and claims get volumes.

    Args:
        server: the API server, as administrator.
        api: the same, for kinds that the operator does not handle; nobody else uses it meanwhile.
        folder: where volumes and the pods' folders lie.
        serving: the certificate of the port at which the API server asks for logs.
        machine: what the node says that it has.
    """
    machine = machine or Machine(gpus=0, cpus=16, memory_bytes=64 << 30)
    pods = folder / "pods"
    node = Node(
        server, pods, Volumes(server, folder / "volumes"), Capacity(machine), lambda _name, _key: None, adjust=_meet_on_loopback
    )
    async with _logs_served(node, server, serving) as port:
        status = _status(machine, port)
        await asyncio.to_thread(_register, api, status)
        tasks = [asyncio.create_task(work) for work in (_beat(api, status), _provide_volumes(server, api, folder / "volumes"))]
        try:
            async with ProcessKubelet(node, NAME).running():
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            api.delete(_NODE)


def _register(api: Api, status: Object) -> None:
    try:
        api.create(_NODE)
    except RefusedError as error:
        if error.code != 409:
            raise
    api.patch(_NODE, status, "status")


def _status(machine: Machine, port: int) -> Object:
    has = {"cpu": str(machine.cpus), "memory": str(machine.memory_bytes), "pods": "500", "ephemeral-storage": "1Ti"}
    if machine.gpus:
        has["nvidia.com/gpu"] = str(machine.gpus)
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": _now()}
    return {
        "status": {
            "capacity": has, "allocatable": has, "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
    }  # fmt: skip


def _now() -> str:
    return stamp(datetime.now(UTC))


async def _beat(api: Api, status: Object) -> None:
    """A node that is not heard for 40 seconds counts as gone."""
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        status["status"]["conditions"][0]["lastHeartbeatTime"] = _now()
        with contextlib.suppress(OSError, RefusedError):
            await asyncio.to_thread(api.patch, _NODE, status, "status")


async def _provide_volumes(server: ApiServer, api: Api, folder: Path) -> None:
    """A volume for every claim, as a provisioner makes them."""
    async for change in changes(server, CLAIM):
        claim = change.object
        if change.type == "DELETED" or claim["spec"].get("volumeName") or claim["metadata"].get("deletionTimestamp"):
            continue
        metadata = claim["metadata"]
        manifest = {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"claim-{metadata['uid']}"},
            "spec": {
                "capacity": claim["spec"]["resources"]["requests"], "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": claim["spec"].get("storageClassName", ""),
                "hostPath": {"path": str(folder / metadata["namespace"] / metadata["name"])},
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": metadata["namespace"],
                    "name": metadata["name"], "uid": metadata["uid"],
                },
            },
        }  # fmt: skip
        with contextlib.suppress(OSError, RefusedError):  # it is there already
            await asyncio.to_thread(api.create, manifest)


def _meet_on_loopback(pod: Object, variables: dict[str, str]) -> None:
    """The ranks of a TrainJob meet at a host name that only a cluster's DNS knows: here, at a port of their own."""
    jobset = (pod["metadata"].get("labels") or {}).get("jobset.sigs.k8s.io/jobset-uid")
    if jobset and "PET_MASTER_ADDR" in variables:
        number = int(hashlib.sha256(jobset.encode()).hexdigest(), 16)
        variables |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(_FIRST_PORT + number % _PORTS)}


@contextlib.asynccontextmanager
async def _logs_served(node: Node, server: ApiServer, pair: Pair) -> AsyncIterator[int]:
    """The kubelet's own port: the API server passes requests for logs on to it."""

    async def logs(request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        try:
            pod = await server.get(POD, namespace, name)
            tail, limit = (int(value) if (value := request.query.get(key)) else None for key in ("tailLines", "limitBytes"))
            return web.Response(body=read_log(node.log_path(pod["metadata"]["uid"]), tail, limit))
        except (NotFound, FileNotFoundError):
            raise web.HTTPNotFound(text=f"no log of {namespace}/{name}") from None

    app = web.Application()
    app.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", logs)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
