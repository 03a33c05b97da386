"""``Status`` objects, the result of failed requests and deletions."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from finetune_operator.api.kinds import Kind
from finetune_operator.local.store.database import encode
from finetune_operator.local.store.rejections import RejectedObject
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import ApiError


def failure(error: ApiError, kind: Kind | None = None, name: str | None = None) -> Object:
    """Return the ``Status`` of an error in a request for ``kind`` and ``name``."""
    details: dict[str, Any] = {}
    if kind is not None:
        details = {"group": kind.group, "kind": kind.name if error.code == 422 else kind.plural}
    if isinstance(error, RejectedObject):
        name = error.name
        details["causes"] = [
            {"reason": str(problem.kind), "message": problem.message, "field": problem.field or "<nil>"}
            for problem in error.problems
        ]
    details["name"] = name
    code = error.code or 500
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": error.message, "reason": error.reason,
        "details": {key: value for key, value in details.items() if value}, "code": code,
    }  # fmt: skip


def response(error: ApiError, kind: Kind | None = None, name: str | None = None) -> web.Response:
    """Return the response with :func:`failure`."""
    status = failure(error, kind, name)
    return web.json_response(status, status=status["code"], dumps=encode)


def success(kind: Kind, name: str, uid: str) -> Object:
    """Return the ``Status`` of a completed deletion."""
    details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }  # fmt: skip
