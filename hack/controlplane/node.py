"""A node of the control plane that runs containers as processes: the local runner as its kubelet.

It takes the pods of one namespace, and binds them itself. They are started, ended and reported as on any node; only images, networks
and mounts are not real: a container is a process of this machine, ``python`` is this Python, a claim is a folder, and the ranks of a
training meet on the loopback interface. Real exit codes, signals, logs and termination messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
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

_TAINT = {"key": "finetunerun.io/processes", "value": "only", "effect": "NoSchedule"}
"""Keeps the scheduler away: tests share a control plane, and each has a node for its own namespace."""
_BEAT_SECONDS = 5.0
_FIRST_PORT, _PORTS = 20000, 9000


@contextlib.asynccontextmanager
async def process_node(
    server: ApiServer, api: Api, namespace: str, folder: Path, serving: Pair, *, machine: Machine | None = None
) -> AsyncIterator[None]:
    """Inside this context the pods of ``namespace`` run, and its claims get volumes.

    Args:
        server: the API server, as administrator.
        api: the same, for kinds that the operator does not handle; nobody else uses it meanwhile.
        namespace: whose pods run here.
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
        manifest = _node(f"processes-{namespace}")
        status = _status(machine, port)
        calls = _Calls(api)
        await calls.make(api.create, manifest)
        await calls.make(api.patch, manifest, status, "status")
        works = (
            _beat(calls, manifest, status), _bind(server, calls, namespace, manifest["metadata"]["name"]),
            _provide_volumes(server, calls, namespace, folder / "volumes"),
        )  # fmt: skip
        tasks = [asyncio.create_task(work) for work in works]
        try:
            async with ProcessKubelet(node, manifest["metadata"]["name"]).running():
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            api.delete(manifest)


class _Calls:
    """Calls of several tasks over the one connection that :class:`Api` has."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._one = asyncio.Lock()

    async def make(self, call: Callable[..., object], *arguments: object) -> None:
        """One call, in a thread, after those before it."""
        async with self._one:
            await asyncio.to_thread(call, *arguments)

    async def try_to(self, call: Callable[..., object], *arguments: object) -> None:
        """The same; it does not matter if it is refused: another look follows."""
        with contextlib.suppress(OSError, RefusedError):
            await self.make(call, *arguments)


def _node(name: str) -> Object:
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": [_TAINT]}}


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


async def _beat(calls: _Calls, node: Object, status: Object) -> None:
    """A node that is not heard for 40 seconds counts as gone."""
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        status["status"]["conditions"][0]["lastHeartbeatTime"] = _now()
        await calls.try_to(calls.api.patch, node, status, "status")


async def _bind(server: ApiServer, calls: _Calls, namespace: str, node: str) -> None:
    """What the scheduler does elsewhere."""
    async for change in changes(server, POD, namespace):
        pod = change.object
        if change.type == "DELETED" or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
            continue
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await calls.try_to(calls.api.call, "POST", f"{POD.path(namespace, name)}/binding", binding)


async def _provide_volumes(server: ApiServer, calls: _Calls, namespace: str, folder: Path) -> None:
    """A volume for every claim, as a provisioner makes them."""
    async for change in changes(server, CLAIM, namespace):
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
        await calls.try_to(calls.api.create, manifest)


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
