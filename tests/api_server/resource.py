"""Handlers of the requests for the objects of one kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from aiohttp import web
from aiohttp.typedefs import Handler

from finetune_operator.api.kinds import POD, Kind
from finetune_operator.local.store import Selector, Store, field_selector, rejections
from finetune_operator.local.store.database import encode
from finetune_operator.local.store.merge import merge_patch
from finetune_operator.local.store.objects import WITH_STATUS
from finetune_operator.loop.cluster import Object, Propagation
from finetune_operator.loop.errors import ApiError, NotFound
from finetune_operator.validation.problem import CauseType, Problem

from . import statuses

MERGE_PATCH = "application/merge-patch+json"
_WATCH_SECONDS = 1800.0
_LOG_POLL_SECONDS = 0.2
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Resource:
    """The handlers for one kind.

    Attributes:
        store: the objects.
        kind: their kind.
        bookmark_seconds: time without a change after which a watch sends a bookmark.
        watches: the open watches, which the server cancels when it stops.
    """

    store: Store
    kind: Kind
    bookmark_seconds: float
    watches: set[asyncio.Task[Any]]

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to the handlers."""
        inside = self.kind.path("{namespace}") if self.kind.namespaced else self.kind.path()
        routes: list[web.RouteDef] = [
            web.get(inside, self.collection), web.post(inside, self.create), web.get(f"{inside}/{{name}}", self.get),
            web.patch(f"{inside}/{{name}}", self.patch), web.delete(f"{inside}/{{name}}", self.delete),
        ]  # fmt: skip
        if self.kind.namespaced:
            routes.append(web.get(self.kind.path(), self.collection))
        if self.kind in WITH_STATUS:
            routes += [
                web.get(f"{inside}/{{name}}/status", self.get), web.patch(f"{inside}/{{name}}/status", self.patch_status),
            ]  # fmt: skip
        if self.kind == POD:
            routes.append(web.get(f"{inside}/{{name}}/log", self.log))
        return [web.route(route.method, route.path, self._with_status(route.handler)) for route in routes]

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Return one object."""
        namespace, name = _address(request)
        return _json(await self.store.get(self.kind, namespace, name))

    async def collection(self, request: web.Request) -> web.StreamResponse:
        """Return a list, or the events of a watch."""
        query, namespace = request.query, request.match_info.get("namespace")
        try:
            selector, fields = (
                Selector.parse(query.get("labelSelector", "")),
                field_selector.parse(query.get("fieldSelector", "")),
            )
        except ValueError as error:
            raise rejections.bad_request(str(error)) from None
        if query.get("watch", "") in ("1", "true"):
            if fields:
                raise rejections.bad_request("the embedded API watches without fieldSelector")
            return await self._watch(request, namespace, selector)
        limit = _number(query, "limit") or 0
        page = await self.store.list(
            self.kind, namespace, labels=selector, fields=fields, limit=limit, continue_=query.get("continue")
        )
        metadata = {"resourceVersion": page.resource_version, **({"continue": page.continue_} if page.continue_ else {})}
        return _json(
            {"kind": f"{self.kind.name}List", "apiVersion": self.kind.api_version, "metadata": metadata, "items": page.items}
        )

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Create an object."""
        body, (namespace, _) = await _body(request), _address(request)
        expected = {"apiVersion": self.kind.api_version, "kind": self.kind.name}
        if {name: body.get(name) for name in expected} != expected:
            raise rejections.bad_request(
                f"the object provided is unrecognized (must be of type {self.kind.name}):"
                f" it is {body.get('apiVersion')}, {body.get('kind')}"
            )
        metadata = body.get("metadata") or {}
        if isinstance(metadata, dict) and namespace and metadata.setdefault("namespace", namespace) != namespace:
            raise rejections.bad_request("the namespace of the provided object does not match the namespace sent on the request")
        body, warnings = self._validated(request, {**body, "metadata": metadata})
        return _json(await self.store.create(body, dry_run="dryRun" in request.query), 201, warnings)

    async def patch(self, request: web.Request) -> web.StreamResponse:
        """Apply a merge patch to everything but status."""
        return await self._patch(request, status=False)

    async def patch_status(self, request: web.Request) -> web.StreamResponse:
        """Apply a merge patch to status."""
        return await self._patch(request, status=True)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete an object, with ``DeleteOptions`` in the body or the query."""
        namespace, name = _address(request)
        options = await _body(request) if request.can_read_body else {}
        grace = options.get("gracePeriodSeconds", _number(request.query, "gracePeriodSeconds"))
        propagation = options.get("propagationPolicy") or request.query.get("propagationPolicy") or "Background"
        if propagation not in get_args(Propagation):
            raise rejections.bad_request(f'propagationPolicy: Unsupported value: "{propagation}"')
        policy = cast("Propagation", propagation)
        before = await self.store.get(self.kind, namespace, name)
        uid = (options.get("preconditions") or {}).get("uid")
        await self.store.delete(self.kind, namespace, name, uid=uid, propagation=policy, grace_seconds=grace)
        try:
            after = await self.store.get(self.kind, namespace, name)
        except NotFound:
            after = {}
        if after.get("metadata", {}).get("uid") == before["metadata"]["uid"]:
            return _json(after)
        return _json(statuses.success(self.kind, name, before["metadata"]["uid"]))

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Return the log of a container; with ``follow``, until the pod ends."""
        namespace, name = _address(request)
        query = request.query
        container, limit = query.get("container"), _number(query, "limitBytes")
        part = await self.store.log_part(
            namespace or "", name, container, tail_lines=_number(query, "tailLines"), limit_bytes=limit
        )
        if query.get("follow") not in ("1", "true"):
            return web.Response(body=part, content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        start = len(await self.store.log_part(namespace or "", name, container))
        await response.write(part)
        finished = False
        while not finished:
            finished = await self._finished(namespace, name)
            part = await self.store.log_part(namespace or "", name, container, start=start)
            start += len(part)
            await response.write(part)
            await asyncio.sleep(0 if finished else _LOG_POLL_SECONDS)
        return response

    def _with_status(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
        """Return ``handler`` with its errors as a ``Status`` that names the object."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except ApiError as error:
                return statuses.response(error, self.kind, request.match_info.get("name"))

        return answer

    async def _finished(self, namespace: str | None, name: str) -> bool:
        try:
            pod = await self.store.get(POD, namespace, name)
        except NotFound:
            return True
        return (pod.get("status") or {}).get("phase") in _FINISHED

    async def _patch(self, request: web.Request, *, status: bool) -> web.StreamResponse:
        if request.content_type != MERGE_PATCH:
            message = f"the body of the request was in an unknown format - accepted media types include: {MERGE_PATCH}"
            raise ApiError(message, 415, "UnsupportedMediaType")
        patch, (namespace, name) = await _body(request), _address(request)
        warnings: list[Problem] = []
        if request.query.get("fieldValidation") != "Ignore":
            old = await self.store.get(self.kind, namespace, name)
            _, faults = self.store.decode(self.kind, merge_patch(old, patch), old)
            warnings = [fault for fault in faults if fault.kind is CauseType.UNKNOWN_FIELD]
        if warnings and request.query.get("fieldValidation") == "Strict":
            listed = ", ".join(fault.message for fault in warnings)
            raise rejections.invalid(self.kind, name, [Problem("patch", CauseType.INVALID, f"strict decoding error: {listed}")])
        apply = self.store.patch_status if status else self.store.patch
        return _json(await apply(self.kind, namespace, name, patch), 200, warnings)

    def _validated(self, request: web.Request, body: Object) -> tuple[Object, list[Problem]]:
        """Return the object to create and warnings. The store itself is always strict."""
        mode = request.query.get("fieldValidation", "Warn")
        if mode == "Strict":
            return body, []
        pruned, faults = self.store.decode(self.kind, body)
        unknown = [fault for fault in faults if fault.kind is CauseType.UNKNOWN_FIELD]
        return pruned, unknown if mode == "Warn" else []

    async def _watch(self, request: web.Request, namespace: str | None, selector: Selector) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        bookmarks = self.bookmark_seconds if request.query.get("allowWatchBookmarks") in ("1", "true") else None
        task = asyncio.current_task()
        assert task is not None
        self.watches.add(task)
        try:
            async with asyncio.timeout(_number(request.query, "timeoutSeconds") or _WATCH_SECONDS):
                changes = self.store.watch(
                    self.kind, namespace, labels=selector, resource_version=request.query.get("resourceVersion"),
                    bookmark_seconds=bookmarks,
                )  # fmt: skip
                async for change in changes:
                    await response.write(encode({"type": change.type, "object": change.object}).encode() + b"\n")
        except TimeoutError:
            pass
        except ApiError as error:
            await response.write(encode({"type": "ERROR", "object": statuses.failure(error)}).encode() + b"\n")
        finally:
            self.watches.discard(task)
        return response


def _address(request: web.Request) -> tuple[str | None, str]:
    return request.match_info.get("namespace"), request.match_info.get("name", "")


async def _body(request: web.Request) -> Object:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise rejections.bad_request(f"the body of the request is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise rejections.bad_request("the body of the request is not a JSON object")
    return body


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise rejections.bad_request(f'{name}: Invalid value: "{text}": must be a number')
    return int(text)


def _json(document: Object, code: int = 200, warnings: list[Problem] | None = None) -> web.Response:
    response = web.json_response(document, status=code, dumps=encode)
    for warning in warnings or ():
        response.headers.add("Warning", f"299 - {json.dumps(warning.message)}")
    return response
