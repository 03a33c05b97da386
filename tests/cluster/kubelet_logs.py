"""A node whose kubelet does one thing only: it sends logs, and its connections break when a test requires it."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from controlplane.api import Api
from controlplane.certificates import Pair
from finetune_operator.api.kinds import POD
from finetune_operator.kube.client import ApiServer


class LogNode:
    """Pods that are bound to it, what they have written, and how they ended: all set by the test."""

    def __init__(self, cluster: ApiServer, api: Api, serving: Pair, namespace: str) -> None:
        self._cluster, self._api, self._serving, self._namespace = cluster, api, serving, namespace
        self._logs: dict[str, bytearray] = defaultdict(bytearray)
        self._ended: set[str] = set()
        self._sent: dict[str, int] = defaultdict(int)
        self._broken = asyncio.Event()
        self._manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"logs-{namespace}"}}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", self._send)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self._serving.certificate, self._serving.key)
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = self._runner.addresses[0][1]
        taint = {"key": "finetunerun.io/logs", "value": "only", "effect": "NoSchedule"}
        await asyncio.to_thread(self._api.create, {**self._manifest, "spec": {"taints": [taint]}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await asyncio.to_thread(self._api.patch, self._manifest, {"status": status}, "status")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.break_connections()
        for pod in (await self._cluster.list(POD, self._namespace)).items:
            await self._cluster.delete(POD, self._namespace, pod["metadata"]["name"], grace_seconds=0)
        await asyncio.to_thread(self._api.delete, self._manifest)
        await self._runner.cleanup()

    async def pod(self, labels: dict[str, str], rank: int, owners: list[dict[str, Any]]) -> str:
        """A running pod; its name."""
        name = f"p{uuid.uuid4().hex[:8]}"
        await self._cluster.create({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": self._namespace, "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(rank)},
                "ownerReferences": owners,
            },
            "spec": {
                "nodeName": self._manifest["metadata"]["name"], "containers": [{"name": name, "image": "x"} for name in ("node", "other")],
                "restartPolicy": "Never",
            },
        })  # fmt: skip
        await self._cluster.patch_status(POD, self._namespace, name, {"status": {"phase": "Running"}})
        return name

    def write(self, pod: str, text: bytes) -> None:
        """Something more in the log of a pod."""
        self._logs[pod] += text

    async def read_by(self, pod: str) -> int:
        """How much of a pod's log was sent over one connection."""
        return self._sent[pod]

    async def end(self, pod: str, phase: str) -> None:
        """The pod writes nothing more."""
        self._ended.add(pod)
        await self._cluster.patch_status(POD, self._namespace, pod, {"status": {"phase": phase}})

    def break_connections(self) -> None:
        """Those that are open now end in the middle."""
        self._broken.set()
        self._broken = asyncio.Event()

    async def _send(self, request: web.Request) -> web.StreamResponse:
        pod, broken = request.match_info["pod"], self._broken
        if request.match_info["container"] != "node":
            raise web.HTTPNotFound
        response = web.StreamResponse()
        await response.prepare(request)
        sent = 0
        while True:
            over = pod in self._ended or "follow" not in request.query
            if len(self._logs[pod]) > sent:
                await response.write(bytes(self._logs[pod][sent:]))
                sent = self._sent[pod] = len(self._logs[pod])
            if over:
                return response
            await asyncio.sleep(0.02)
            if broken.is_set():
                assert request.transport is not None
                request.transport.abort()
                return response
