"""What can go wrong when the API is called, sorted by what the caller does about it.

::

    ApiError
      NotFound        the object (or its kind) is not there
      Conflict        the object changed since it was read: look again
        AlreadyExists an object of that name is there already
      Invalid         the API refuses the object: no use in trying again without a change
      Forbidden       the caller lacks a right; the message names verb, resource and namespace
      Transient       a passing fault of the server or the network: try again
        Timeout       no answer within the deadline: the effect may or may not have happened
        Gone          a list's continuation or a watch's version is too old: start over
"""

from __future__ import annotations


class ApiError(Exception):
    """A call to the API failed.

    Attributes:
        message: what the API said.
        code: HTTP status, 0 where there was no answer.
        reason: the API's own word (``NotFound``, ``AlreadyExists`` ...).
        causes: field path and message pairs, where the API gave details.
    """

    def __init__(self, message: str, code: int = 0, reason: str = "", causes: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or type(self).__name__
        self.causes = causes


class NotFound(ApiError):
    """The object, or its kind, is not there (404)."""


class Conflict(ApiError):
    """The object changed since it was read, or its uid is another one (409)."""


class AlreadyExists(Conflict):
    """An object of that name is there already (409, reason AlreadyExists)."""


class Invalid(ApiError):
    """The API refuses the object (400, 422), or an admission webhook denies it (403 with its words)."""


class Forbidden(ApiError):
    """The caller is not known or lacks the right (401, 403)."""


class Transient(ApiError):
    """A passing fault: 429, 5xx, a broken connection."""


class Timeout(Transient):
    """No answer within the deadline. The effect may have happened."""


class Gone(Transient):
    """A continuation or a resource version is too old (410): start over from a fresh list."""
