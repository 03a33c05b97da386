"""Error responses of an API server as typed errors."""

from __future__ import annotations

import json
from typing import Any

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

_BY_CODE: dict[int, type[ApiError]] = {
    401: Forbidden, 403: Forbidden, 404: NotFound, 408: Timeout, 409: Conflict, 410: Gone, 429: Transient, 504: Timeout,
}  # fmt: skip
# The denial of an admission webhook and a missing right are both 403; only the message distinguishes them.
_WEBHOOK = "admission webhook"
_TEXT_LIMIT = 500


def error_of(code: int, body: bytes, request: str) -> ApiError:
    """Return the error for an error response.

    Args:
        code: the HTTP status.
        body: a ``Status`` object, or any content of a proxy.
        request: method and path of the request, for the message if the response has none.
    """
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = body[:_TEXT_LIMIT].decode(errors="replace").strip()
        status = {"message": f"{request}: HTTP {code} {text}".strip()}
    return error_of_status({**status, "code": code})


def error_of_status(status: dict[str, Any]) -> ApiError:
    """Return the error for a ``Status`` object."""
    code, reason, message = int(status.get("code") or 0), status.get("reason") or "", status.get("message") or ""
    causes = tuple(
        ((cause.get("field") or "").replace("<nil>", ""), cause.get("message") or "")
        for cause in (status.get("details") or {}).get("causes") or ()
    )
    return _class(code, reason, message)(message, code, reason, causes)


def _class(code: int, reason: str, message: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if code == 403 and _WEBHOOK in message:
        return Invalid
    if code >= 500:
        return _BY_CODE.get(code, Transient)
    return _BY_CODE.get(code, Invalid)
