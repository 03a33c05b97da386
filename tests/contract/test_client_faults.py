"""The client with an API server whose responses are errors, late or missing: a healthy server does not produce these faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from api_server import serving
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.kube.client import ApiServer
from finetune_operator.loop.cluster import WatchEvent
from finetune_operator.loop.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Timeout,
    Transient,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Connect = Callable[..., Awaitable[ApiServer]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Start a server whose responses come from the handler, and return a client for it."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler, **options: Any) -> ApiServer:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            address = await stack.enter_async_context(serving(app))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return ApiServer(session, address, **options)

        yield start


def status(code: int, reason: str, message: str, **details: Any) -> web.Response:
    document = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}
    return web.json_response(document, status=code)


DENIAL = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: no such runtime'


def rejection(code: int, reason: str, message: str) -> Callable[[], web.Response]:
    return lambda: status(code, reason, message)


def wrote(code: int, text: str = "") -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, text=text)


@pytest.mark.parametrize(
    ("answer", "code", "error", "words"),
    [
        (rejection(403, "Forbidden", "jobs.batch is forbidden: User cannot create"), 403, Forbidden, "User cannot create"),
        (rejection(403, "Forbidden", DENIAL), 403, Invalid, "no such runtime"),
        (rejection(401, "Unauthorized", "Unauthorized"), 401, Forbidden, "Unauthorized"),
        (rejection(404, "NotFound", "not there"), 404, NotFound, "not there"),
        (wrote(404, "404 page not found\n"), 404, NotFound, "HTTP 404 404 page not found"),
        (rejection(409, "AlreadyExists", "there already"), 409, AlreadyExists, "there already"),
        (rejection(409, "Conflict", "modified"), 409, Conflict, "modified"),
        (rejection(410, "Expired", "too old"), 410, Gone, "too old"),
        (rejection(413, "RequestEntityTooLarge", "too large"), 413, Invalid, "too large"),
        (rejection(422, "Invalid", "bad"), 422, Invalid, "bad"),
        (rejection(429, "TooManyRequests", "slow down"), 429, Transient, "slow down"),
        (rejection(500, "InternalError", "failed calling webhook: refused"), 500, Transient, "failed calling webhook"),
        (wrote(502, "<html>Bad Gateway</html>"), 502, Transient, "HTTP 502 <html>Bad Gateway</html>"),
        (rejection(503, "ServiceUnavailable", "etcd is down"), 503, Transient, "etcd is down"),
        (rejection(504, "Timeout", "too slow"), 504, Timeout, "too slow"),
        (wrote(503), 503, Transient, "HTTP 503"),
    ],
)
async def test_every_error_response_has_its_error(
    connect: Connect, answer: Callable[[], web.Response], code: int, error: type[ApiError], words: str
) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return answer()

    cluster = await connect(handler)
    for call in (cluster.get, cluster.delete):
        with pytest.raises(ApiError) as caught:
            await call(CONFIGMAP, "default", "a")
        assert type(caught.value) is error
        assert words in caught.value.message
        assert caught.value.code == code


async def test_causes_are_kept(connect: Connect) -> None:
    causes = [{"reason": "FieldValueInvalid", "field": "spec.x", "message": "bad"}, {"field": "<nil>", "message": "all bad"}]

    async def handler(_request: web.Request) -> web.StreamResponse:
        return status(422, "Invalid", "bad", causes=causes)

    with pytest.raises(Invalid) as caught:
        await (await connect(handler)).patch(CONFIGMAP, "default", "a", {})
    assert caught.value.causes == (("spec.x", "bad"), ("", "all bad"))


async def test_a_server_that_does_not_respond(connect: Connect) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    cluster = await connect(handler, deadline=0.2)
    with pytest.raises(Timeout, match="GET /api/v1/namespaces/default/configmaps/a: no response in time"):
        await cluster.get(CONFIGMAP, "default", "a")


async def test_a_response_that_arrives_too_slowly(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    cluster = await connect(handler, deadline=0.3)
    with pytest.raises(Timeout):
        await cluster.get(CONFIGMAP, "default", "a")


async def test_a_server_that_is_not_running(connect: Connect) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Transient, match="GET /api/v1"):
            await ApiServer(session, "http://127.0.0.1:9").get(CONFIGMAP, "default", "a")


async def test_a_connection_that_breaks(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(Transient):
        await (await connect(handler)).create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})


async def test_a_token_that_expired_is_read_again(connect: Connect) -> None:
    tokens, sent = iter(["old", "new", "never"]), []

    async def handler(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers["Authorization"])
        if sent[-1] == "Bearer old":
            return status(401, "Unauthorized", "Unauthorized")
        return web.json_response({"kind": "ConfigMap"})

    cluster = await connect(handler, token=lambda: next(tokens))
    for _ in range(2):
        await cluster.get(CONFIGMAP, "default", "a")
    assert sent == ["Bearer old", "Bearer new", "Bearer new"]


async def test_a_token_that_is_rejected_twice(connect: Connect) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return status(401, "Unauthorized", "Unauthorized")

    with pytest.raises(Forbidden):
        await (await connect(handler, token=lambda: "wrong")).get(CONFIGMAP, "default", "a")


def event(type_: str, version: int) -> bytes:
    return json.dumps({"type": type_, "object": {"metadata": {"name": "a", "resourceVersion": str(version)}}}).encode() + b"\n"


class Watched:
    """A server of watches: each request gets the next part of the script, and then nothing more or the end."""

    def __init__(self, *parts: tuple[bytes, ...]) -> None:
        self.parts = list(parts)
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.query["resourceVersion"])
        assert request.query["allowWatchBookmarks"] == "true"
        response = web.StreamResponse()
        await response.prepare(request)
        for part in self.parts.pop(0):
            if part == b"silence":
                await asyncio.sleep(60)
            await response.write(part)
        return response


async def first(cluster: ApiServer, count: int) -> list[WatchEvent]:
    seen = []
    async with asyncio.timeout(20), aclosing(cluster.watch(CONFIGMAP, "default", resource_version="1")) as changes:  # type: ignore[type-var]
        async for change in changes:
            seen.append(change)
            if len(seen) == count:
                break
    return seen


async def test_a_watch_continues_after_the_server_ends_it(connect: Connect) -> None:
    server = Watched((event("ADDED", 2), event("BOOKMARK", 9)), (event("MODIFIED", 10),))
    changes = await first(await connect(server.answer), 3)
    assert [change.type for change in changes] == ["ADDED", "BOOKMARK", "MODIFIED"]
    assert server.asked == ["1", "9"]


async def test_a_watch_without_data_is_repeated(connect: Connect) -> None:
    server = Watched((event("ADDED", 2), b"silence"), (event("MODIFIED", 3),))
    changes = await first(await connect(server.answer, silence=0.2), 2)
    assert [change.type for change in changes] == ["ADDED", "MODIFIED"]
    assert server.asked == ["1", "2"]


async def test_an_event_in_pieces(connect: Connect) -> None:
    whole = event("ADDED", 2) + event("MODIFIED", 3)
    server = Watched(tuple(whole[i : i + 7] for i in range(0, len(whole), 7)))
    assert [change.type for change in await first(await connect(server.answer), 2)] == ["ADDED", "MODIFIED"]


@pytest.mark.parametrize(("code", "error"), [(410, Gone), (500, Transient)])
async def test_an_error_in_a_watch(connect: Connect, code: int, error: type[ApiError]) -> None:
    fault = {"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": "Expired", "message": "too old"}}
    server = Watched((event("ADDED", 2), json.dumps(fault).encode() + b"\n"))
    with pytest.raises(error, match="too old"):
        await first(await connect(server.answer), 2)


async def test_a_watch_that_is_rejected(connect: Connect) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return status(403, "Forbidden", "no right to watch")

    with pytest.raises(Forbidden, match="no right to watch"):
        await first(await connect(handler), 1)


async def test_new_objects_are_validated_strictly(connect: Connect) -> None:
    asked = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append((request.method, request.path, dict(request.query)))
        return web.json_response({})

    cluster = await connect(handler)
    await cluster.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "team"}})
    query = {"fieldValidation": "Strict", "fieldManager": "finetune-operator"}
    assert asked == [("POST", "/apis/batch/v1/namespaces/team/jobs", query)]
