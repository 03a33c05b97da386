"""Errors of calls to the API server, by what the caller can do.

::

    ApiError
      NotFound        the object or its kind does not exist
      Conflict        the object changed since it was read: read it again
        AlreadyExists an object of that name exists
      Invalid         the API server rejects the object: a retry without a change is useless
      Forbidden       the caller lacks a right; the message names verb, resource and namespace
      Transient       a transient fault of the server or the network: retry
        Timeout       no response within the deadline: the call may have taken effect
        Gone          the continuation of a list or the version of a watch is too old: list again
"""

from __future__ import annotations


class ApiError(Exception):
    """A call to the API failed.

    Attributes:
        message: the message of the API server.
        code: HTTP status; 0 without a response.
        reason: ``reason`` of the ``Status`` object, such as ``NotFound`` or ``AlreadyExists``.
        causes: pairs of field path and message, if the API server reported them.
    """

    def __init__(self, message: str, code: int = 0, reason: str = "", causes: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or type(self).__name__
        self.causes = causes


class NotFound(ApiError):
    """The object or its kind does not exist (404)."""


class Conflict(ApiError):
    """The object changed since it was read, or it has another uid (409)."""


class AlreadyExists(Conflict):
    """An object of that name exists (409, reason AlreadyExists)."""


class Invalid(ApiError):
    """The API server rejects the object (400, 422), or an admission webhook denies it (403 with its message)."""


class Forbidden(ApiError):
    """The caller is not authenticated or lacks the right (401, 403)."""


class Transient(ApiError):
    """A transient fault: 429, 5xx, or a broken connection."""


class Timeout(Transient):
    """No response within the deadline. The call may have taken effect."""


class Gone(Transient):
    """A continuation or a resource version is too old (410)."""
