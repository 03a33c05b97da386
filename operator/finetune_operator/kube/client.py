"""The calls of :class:`~finetune_operator.loop.cluster.Cluster` on a real API server.

They use aiohttp directly: typed clients drop unknown fields of objects. A call can be canceled, and the session can be shared.
"""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import aiohttp

from finetune_operator.api.kinds import POD, Kind, kind_of
from finetune_operator.loop.cluster import DEADLINE, PAGE, Object, Page, Propagation, WatchEvent
from finetune_operator.loop.errors import NotFound, Timeout, Transient
from finetune_operator.loop.pager import list_pages

from .api_errors import error_of, error_of_status

FIELD_MANAGER = "finetune-operator"

_WATCH_SECONDS = 300
_CONNECT_SECONDS = 10.0
_QUIET_LOG_SECONDS = 300.0
"""Seconds without output after which a followed log ends: the connection may be broken."""
_MERGE_PATCH = "application/merge-patch+json"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

TokenSource = Callable[[], str]
"""Reads the bearer token. It is called in a thread, and again when the server rejects the token."""


class ApiServer:
    """Client of one API server with one identity.

    Args:
        session: sends the requests. The caller closes it.
        address: ``https://host:port``.
        token: reads the bearer token; without it, the client certificate identifies the caller.
        tls: the context of TLS connections.
        deadline: the time limit of a call in seconds.
        silence: seconds without data after which a watch is repeated. API servers send a bookmark about every minute.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: str,
        *,
        token: TokenSource | None = None,
        tls: ssl.SSLContext | None = None,
        deadline: float = DEADLINE,
        silence: float = 70.0,
    ) -> None:
        self._session = session
        self._address = address.rstrip("/")
        self._token_source = token
        self._token: str | None = None
        self._tls: ssl.SSLContext | Literal[True] = tls or True
        self._call_limits = aiohttp.ClientTimeout(total=deadline, sock_connect=_CONNECT_SECONDS)
        self._watch_limits = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=silence)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.get`."""
        return await self._call("GET", kind.path(namespace, name))

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.get_metadata`."""
        document = await self._call("GET", kind.path(namespace, name), accept=_METADATA)
        return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": document["metadata"]}

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int = PAGE,
        continue_: str | None = None,
    ) -> Page:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.list`."""
        query = {"limit": str(limit), **_selection(labels), **({"continue": continue_} if continue_ else {})}
        if fields:
            query["fieldSelector"] = _equal(fields)
        document = await self._call("GET", kind.path(namespace), query)
        # The items of built-in kinds come without their type.
        items = [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in document.get("items") or ()]
        metadata = document["metadata"]
        return Page(items, metadata["resourceVersion"], metadata.get("continue") or None)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        resource_version: str | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.watch`. It continues when the server ends it or stops sending."""
        version = resource_version or ""
        if not version:
            async for page in list_pages(self, kind, namespace, labels=labels):
                for item in page.items:
                    yield WatchEvent("ADDED", item)
                version = page.resource_version
        while True:
            query = {
                "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS),
                **_selection(labels),
            }  # fmt: skip
            async with aclosing(self._events(kind.path(namespace), query)) as events:
                async for event in events:
                    if event["type"] == "ERROR":
                        raise error_of_status(event["object"])
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield WatchEvent(event["type"], event["object"])

    async def create(self, manifest: Object, *, dry_run: bool = False) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.create`."""
        try:
            kind = kind_of(manifest)
        except KeyError:
            raise NotFound(
                f"{manifest.get('apiVersion')}, {manifest.get('kind')}: unknown kind; the operator does not use it"
            ) from None
        namespace = manifest["metadata"].get("namespace", "default") if kind.namespaced else None
        query = {"fieldValidation": "Strict", "fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        return await self._call("POST", kind.path(namespace), query, manifest)

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.patch`."""
        return await self._call("PATCH", kind.path(namespace, name), {"fieldManager": FIELD_MANAGER}, patch, type_=_MERGE_PATCH)

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.patch_status`."""
        path = kind.path(namespace, name, "status")
        return await self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, type_=_MERGE_PATCH)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.delete`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._call("DELETE", kind.path(namespace, name), body=options)

    async def pod_log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
    ) -> str:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.pod_log`."""
        options = {"container": container, "tailLines": tail_lines, "limitBytes": limit_bytes}
        query = {name: str(value) for name, value in options.items() if value is not None}
        async with self._request("GET", POD.path(namespace, pod, "log"), query) as response:
            return (await response.read()).decode(errors="replace")

    async def follow_log(self, namespace: str, pod: str, *, container: str | None = None) -> AsyncGenerator[bytes, None]:
        """See :meth:`~finetune_operator.loop.cluster.Cluster.follow_log`."""
        query = {"follow": "true", **({"container": container} if container else {})}
        limits = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_QUIET_LOG_SECONDS)
        async with self._request("GET", POD.path(namespace, pod, "log"), query, limits=limits) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def document(self, path: str) -> Object:
        """Return the document at a path of the server, such as discovery or OpenAPI. Raises ``NotFound``."""
        return await self._call("GET", path)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        type_: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        data = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        async with self._request(method, path, query or {}, data, type_=type_, accept=accept) as response:
            document: Object = json.loads(await response.read())
            return document

    async def _events(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a watch until the server ends it or sends nothing for too long."""
        rest = b""
        try:
            async with self._request("GET", path, query, limits=self._watch_limits) as response:
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield json.loads(line)
        except Timeout:
            return

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        data: bytes | None = None,
        *,
        type_: str = _JSON,
        accept: str = _JSON,
        limits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Hand out the response to a request. Every failure is raised as an error of the protocol."""
        try:
            for attempt in (1, 2):
                async with self._session.request(
                    method,
                    self._address + path,
                    params=query,
                    data=None if data is None else io.BytesIO(data),
                    headers={**await self._headers(renew=attempt == 2), "Accept": accept, "Content-Type": type_},
                    ssl=self._tls,
                    timeout=limits or self._call_limits,
                ) as response:
                    if response.status == 401 and attempt == 1 and self._token_source is not None:
                        continue  # the token has expired
                    if response.status >= 400:
                        raise error_of(response.status, await response.read(), f"{method} {path}")
                    yield response
                    return
        except TimeoutError as error:
            raise Timeout(f"{method} {path}: no response in time from {self._address}") from error
        except aiohttp.ClientError as error:
            raise Transient(f"{method} {path}: {error}") from error

    async def _headers(self, *, renew: bool) -> dict[str, str]:
        if self._token_source is None:
            return {}
        if self._token is None or renew:
            self._token = await asyncio.to_thread(self._token_source)
        return {"Authorization": f"Bearer {self._token}"}


def _selection(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {"labelSelector": _equal(labels)} if labels else {}


def _equal(values: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())
