"""The web application: routes, errors, authentication, and a server for it."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from finetune_operator.api.kinds import KINDS
from finetune_operator.local.store import Store
from finetune_operator.local.store.rejections import no_such_kind
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import ApiError, Forbidden

from . import discovery, statuses
from .resource import Resource

log = logging.getLogger(__name__)

_BODY_LIMIT = 3 * 1024 * 1024  # as the API server's


def application(store: Store, *, token: str | None = None, bookmark_seconds: float = 30.0) -> web.Application:
    """Return the API of ``store``.

    Args:
        store: the objects; the caller closes it.
        token: the required bearer token; without it, no authentication.
        bookmark_seconds: time without a change after which a watch sends a bookmark.
    """
    app = web.Application(middlewares=[_answer_errors, _require(token)], client_max_size=_BODY_LIMIT)
    watches: set[asyncio.Task[Any]] = set()

    async def end_watches(_app: web.Application) -> None:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    app.on_shutdown.append(end_watches)
    app.router.add_get("/version", _document(dict(discovery.VERSION)))
    for path in ("/healthz", "/livez", "/readyz"):
        app.router.add_get(path, _healthy)
    app.router.add_get("/api", _document(discovery.core_versions()))
    app.router.add_get("/apis", _document(discovery.groups()))
    for group in sorted({kind.group for kind in KINDS} - {""}):
        app.router.add_get(f"/apis/{group}", _document(discovery.group(group)))
    for api_version in sorted({kind.api_version for kind in KINDS}):
        prefix = "apis" if "/" in api_version else "api"
        app.router.add_get(f"/{prefix}/{api_version}", _document(discovery.resources(api_version)))
    for kind in KINDS:
        app.router.add_routes(Resource(store, kind, bookmark_seconds, watches).routes())
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve ``app`` inside this context; the value is its address, ``http://127.0.0.1:41234``."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        _, bound, *_ = runner.addresses[0]
        yield f"http://{host}:{bound}"
    finally:
        await runner.cleanup()


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _document(document: Object) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.json_response(document)

    return handler


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return every failure as a ``Status``."""
    try:
        return await handler(request)
    except ApiError as error:
        failed = error
    except web.HTTPNotFound:
        failed = no_such_kind()
    except web.HTTPException as error:
        failed = ApiError(error.reason, error.status, error.reason.replace(" ", ""))
    except ConnectionError:  # the client has disconnected
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        failed = ApiError(f"{type(error).__name__}: {error}", 500, "InternalError")
    return statuses.response(failed)


def _require(token: str | None) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(sent.encode(), token.encode()):
            raise Forbidden("Unauthorized", 401, "Unauthorized")
        return await handler(request)

    return middleware
