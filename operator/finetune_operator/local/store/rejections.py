"""Errors with the messages of the API server."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_operator.api.kinds import Kind
from finetune_operator.loop.errors import AlreadyExists, ApiError, Conflict, Gone, Invalid, NotFound
from finetune_operator.validation.problem import CauseType, Problem


class RejectedObject(Invalid):
    """The object violates its definition.

    Attributes:
        name: the object's name.
        problems: all its problems.
    """

    def __init__(self, message: str, code: int, reason: str, name: str, problems: Sequence[Problem]) -> None:
        super().__init__(message, code, reason, tuple((problem.field, problem.message) for problem in problems))
        self.name = name
        self.problems = tuple(problems)


def resource_of(kind: Kind) -> str:
    """Return the resource name: ``finetuneruns.finetunerun.io``, or ``pods`` for the core group."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def no_such_kind() -> ApiError:
    """The path is not served."""
    return NotFound("the server could not find the requested resource", 404, "NotFound")


def not_found(kind: Kind, name: str) -> ApiError:
    """The object does not exist."""
    return NotFound(f'{resource_of(kind)} "{name}" not found', 404, "NotFound")


def already_exists(kind: Kind, name: str) -> ApiError:
    """The object exists already."""
    return AlreadyExists(f'{resource_of(kind)} "{name}" already exists', 409, "AlreadyExists")


def stale(kind: Kind, name: str) -> ApiError:
    """The resourceVersion is outdated."""
    return Conflict(
        f'Operation cannot be fulfilled on {resource_of(kind)} "{name}": the object has been modified; please apply your changes'
        " to the latest version and try again",
        409,
        "Conflict",
    )


def other_uid(kind: Kind, name: str, expected: str, actual: str) -> ApiError:
    """The object with this name has another UID."""
    return Conflict(
        f'Operation cannot be fulfilled on {resource_of(kind)} "{name}": the UID in the precondition ({expected}) does not match'
        f" the UID in record ({actual}). The object might have been deleted and then recreated",
        409,
        "Conflict",
    )


def too_old(version: int, oldest: int) -> ApiError:
    """The log no longer contains the version."""
    return Gone(f"too old resource version: {version} ({oldest})", 410, "Expired")


def expired_continuation() -> ApiError:
    """The continue token of a list has expired or is unknown."""
    return Gone(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the"
        " continue parameter.",
        410,
        "Expired",
    )


def bad_request(message: str) -> ApiError:
    """The request is malformed."""
    return Invalid(message, 400, "BadRequest")


def not_started(container: str, pod: str) -> ApiError:
    """The container has no log yet."""
    return bad_request(f'container "{container}" in pod "{pod}" is waiting to start: ContainerCreating')


def undecodable(kind: Kind, unknown: Sequence[Problem]) -> ApiError:
    """Strict decoding found unknown fields."""
    faults = ", ".join(problem.message for problem in unknown)
    message = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: strict decoding error: {faults}'
    return RejectedObject(message, 400, "BadRequest", "", unknown)


def invalid(kind: Kind, name: str, problems: Sequence[Problem]) -> ApiError:
    """The object violates its definition."""
    listed = [str(problem) for problem in problems]
    shown = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    qualified = f"{kind.name}.{kind.group}" if kind.group else kind.name
    return RejectedObject(f'{qualified} "{name}" is invalid: {shown}', 422, "Invalid", name, problems)


def forbidden_change(kind: Kind, name: str, field: str, detail: str) -> ApiError:
    """An immutable field changed."""
    return invalid(kind, name, [Problem(field, CauseType.FORBIDDEN, detail)])
