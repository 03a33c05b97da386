"""Stage errors for MLflow's exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import AddressNotAllowed, causes, first_line

from .registry import Unanswered

_PASSING = (
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "ABORTED",
)
"""Codes of MLflow's transient exceptions. The first one is also used for network failures."""
_FORBIDDEN = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")
_BODY = re.compile(r" Response body: .*", re.DOTALL)
_CAUSE = re.compile(r".*\(Caused by (.+)\)", re.DOTALL)
"""The cause at the end of the long messages of requests and urllib3."""


@contextmanager
def server_errors(address: str) -> Iterator[None]:
    """Raise the exceptions of MLflow's client for the server at ``address`` as :class:`StageError`.

    Raises:
        StageError: ``RegistryUnreachable`` (:class:`Unanswered`), ``RegistryForbidden``, ``RegistryRejected``.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        refused = next((link for link in causes(error) if isinstance(link, AddressNotAllowed)), None)
        if refused:
            raise refused.of(f"registry.address: {address}") from error
        detail = _CAUSE.sub(r"\1", _BODY.sub("", first_line(error)))[:300]
        if error.error_code in _FORBIDDEN:
            raise StageError(
                reasons.REGISTRY_FORBIDDEN,
                f"registry.address: {address} denied access ({detail}); check the token in registry.secretRef and its permissions.",
            ) from error
        if "not in a valid JSON format" in detail:
            raise StageError(
                reasons.REGISTRY_REJECTED,
                f"registry.address: {address} responds with a page instead of JSON; set MLflow's address.",
            ) from error
        if error.error_code in _PASSING:
            raise Unanswered(
                f"registry.address: MLflow at {address} is unreachable or sent an invalid response ({detail})."
            ) from error
        raise StageError(reasons.REGISTRY_REJECTED, f"MLflow at {address} rejected the entry: {detail}") from error


@contextmanager
def store_errors(store: object) -> Iterator[None]:
    """Raise MLflow's and SQLite's errors with the file ``store`` as :class:`StageError`.

    Raises:
        StageError: ``RegistryUnreachable``, ``RegistryRejected``.
    """
    try:
        yield
    except Exception as error:
        fault = store_fault(error, store)
        if fault is None:
            raise
        raise fault from error


def store_fault(error: Exception, store: object) -> StageError | None:
    """Return the stage error for an exception about the file; ``None`` for other exceptions."""
    detail = first_line(error)
    if "database is locked" in str(error):
        return StageError(
            reasons.REGISTRY_UNREACHABLE, f"{store}: it is locked by another program; stop the program that writes to it."
        )
    if "out-of-date database schema" in str(error):
        upgrade = f"back it up and run: mlflow db upgrade sqlite:///{store}"
        return StageError(reasons.REGISTRY_REJECTED, f"{store}: it was written by another release of MLflow; {upgrade}")
    if type(error).__name__ == "MlflowException":
        return StageError(reasons.REGISTRY_REJECTED, f"MLflow's store {store} rejected the entry: {detail}")
    return None
