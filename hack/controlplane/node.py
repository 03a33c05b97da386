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
from typing import TypeVar

from aiohttp import web

from finetune_operator.api.kinds import CLAIM, POD, Kind
from finetune_operator.core.quantities import amount
from finetune_operator.core.settings import Machine
from finetune_operator.core.times import stamp
from finetune_operator.kube.client import ApiServer
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.machine import Capacity
from finetune_operator.local.pod_worker import Node
from finetune_operator.local.store.logs import read_log
from finetune_operator.local.volumes import SecretSource, Volumes
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import NotFound
from finetune_operator.loop.watch import list_watch

from .api import Api, RefusedError
from .certificates import Pair

T = TypeVar("T")

_TAINT = {"key": "finetunerun.io/processes", "value": "only", "effect": "NoSchedule"}
"""Taint against the scheduler: tests share a control plane, and each has a node for its own namespace."""
_BEAT_SECONDS = 5.0
_POLL_SECONDS = 0.5
_GOODBYE_SECONDS = 0.5
"""Seconds until the API server has closed its TLS connections."""
_FIRST_PORT, _PORTS = 20000, 9000


@contextlib.asynccontextmanager
async def process_node(
    server: ApiServer,
    api: Api,
    namespace: str,
    folder: Path,
    serving: Pair,
    *,
    machine: Machine | None = None,
    secrets: SecretSource = lambda _name, _key, _endpoint: None,
) -> AsyncIterator[None]:
    """Inside this context the pods of ``namespace`` run, and its claims get volumes.

    Args:
        server: the API server, as administrator.
        api: the same, for kinds that the operator does not handle; it has no other user.
        namespace: whose pods run here.
        folder: the folder of volumes and of the pods' folders.
        serving: the certificate of the port at which the API server asks for logs.
        machine: what the node reports as its capacity.
        secrets: what it reads of Secrets.
    """
    machine = machine or Machine(gpus=0, cpus=16, memory_bytes=64 << 30)
    pods = folder / "pods"
    node = Node(server, pods, Volumes(server, folder / "volumes"), Capacity(machine), secrets, adjust=_meet_on_loopback)
    async with _logs_served(node, server, serving) as port:
        manifest = _node(f"processes-{namespace}")
        status = _status(machine, port)
        calls = _Calls(api)
        await calls.make(api.create, manifest)
        await calls.make(api.patch, manifest, status, "status")
        works = (
            _beat(calls, manifest, status),
            _place(server, calls, namespace, manifest["metadata"]["name"], machine, folder / "volumes"),
        )
        tasks = [asyncio.create_task(work) for work in works]
        try:
            async with ProcessKubelet(node, manifest["metadata"]["name"]).running():
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await calls.make(api.delete, manifest)


class _Calls:
    """Calls of several tasks over the one connection of :class:`Api`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._one = asyncio.Lock()

    async def make(self, call: Callable[..., T], *arguments: object) -> T:
        """Make a call in a thread, after earlier ones. It ends before the next one even if its caller is cancelled."""
        async with self._one:
            work = asyncio.create_task(asyncio.to_thread(call, *arguments))
            try:
                return await asyncio.shield(work)
            finally:
                await asyncio.wait((work,))

    async def try_to(self, call: Callable[..., object], *arguments: object) -> None:
        """Make a call, and ignore a rejection: it is repeated."""
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
    """Renew the heartbeat of the node, which counts as lost after 40 seconds."""
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        status["status"]["conditions"][0]["lastHeartbeatTime"] = _now()
        await calls.try_to(calls.api.patch, node, status, "status")


async def _place(server: ApiServer, calls: _Calls, namespace: str, node: str, machine: Machine, folder: Path) -> None:
    """Do the work of provisioner and scheduler: a volume for every claim of an existing class, the node for every pod that fits.

    Other pods are left to the real scheduler, which reports why it cannot bind them.
    """
    changed = asyncio.Event()

    async def listen(kind: Kind) -> None:
        async for _ in list_watch(server, kind, namespace):
            changed.set()

    async with asyncio.TaskGroup() as listeners:
        for kind in (POD, CLAIM):
            listeners.create_task(listen(kind))
        while True:
            changed.clear()
            provided = set()
            for claim in (await server.list(CLAIM, namespace)).items:
                if not claim["spec"].get("volumeName"):
                    if not await calls.make(_class_exists, calls.api, claim):
                        continue
                    await calls.try_to(calls.api.create, _volume(claim, folder))
                provided.add(claim["metadata"]["name"])
            for pod in (await server.list(POD, namespace)).items:
                if _fits(pod, machine, provided):
                    await calls.try_to(calls.api.call, "POST", *_binding(pod, node))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):  # wait_for loses a cancellation at the same time as an event
                    await changed.wait()


def _class_exists(api: Api, claim: Object) -> bool:
    name = claim["spec"].get("storageClassName")
    return not name or any(class_["metadata"]["name"] == name for class_ in api.list("storage.k8s.io/v1", "StorageClass"))


def _volume(claim: Object, folder: Path) -> Object:
    metadata = claim["metadata"]
    return {
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


def _fits(pod: Object, machine: Machine, provided: set[str]) -> bool:
    if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return False
    volumes = pod["spec"].get("volumes") or ()
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    asked = (pod["spec"]["containers"][0].get("resources") or {}).get("requests") or {}
    memory, gpus = amount(asked.get("memory", 0)), int(asked.get("nvidia.com/gpu", 0))
    return claims <= provided and memory <= machine.memory_bytes and gpus <= machine.gpus


def _binding(pod: Object, node: str) -> tuple[str, Object]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return f"{POD.path(namespace, name)}/binding", {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": target,
    }


def _meet_on_loopback(pod: Object, variables: dict[str, str]) -> None:
    """Replace the host name at which the ranks of a TrainJob meet, which only a cluster's DNS resolves, by a local port."""
    jobset = (pod["metadata"].get("labels") or {}).get("jobset.sigs.k8s.io/jobset-uid")
    if jobset and "PET_MASTER_ADDR" in variables:
        number = int(hashlib.sha256(jobset.encode()).hexdigest(), 16)
        variables |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(_FIRST_PORT + number % _PORTS)}


@contextlib.asynccontextmanager
async def _logs_served(node: Node, server: ApiServer, pair: Pair) -> AsyncIterator[int]:
    """Serve the port of the kubelet, to which the API server forwards requests for logs."""

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
        await asyncio.sleep(_GOODBYE_SECONDS)
