"""MLflow's exceptions as failures of the stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import first_line

from .registry import Unanswered

_PASSING = (
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "ABORTED",
)
"""Codes of MLflow's exceptions behind which another try may succeed. The first is also what it calls a network that failed."""
_FORBIDDEN = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")
_BODY = re.compile(r" Response body: .*", re.DOTALL)
_CAUSE = re.compile(r".*\(Caused by (.+)\)", re.DOTALL)
"""What requests and urllib3 say at length, at its end."""


@contextmanager
def server_errors(address: str) -> Iterator[None]:
    """What MLflow's client raises when it speaks to the server at ``address``, as :class:`StageError`.

    Raises:
        StageError: ``RegistryUnreachable`` (:class:`Unanswered`), ``RegistryForbidden``, ``RegistryRefused``.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = _CAUSE.sub(r"\1", _BODY.sub("", first_line(error)))[:300]
        if error.error_code in _FORBIDDEN:
            raise StageError(
                reasons.REGISTRY_FORBIDDEN,
                f"{address} refused the call ({said}); check registry.secretRef and its owner's rights.",
            ) from error
        if "not in a valid JSON format" in said:
            raise StageError(
                reasons.REGISTRY_REFUSED,
                f"registry.address: {address} answers with a page in place of JSON; give MLflow's address.",
            ) from error
        if error.error_code in _PASSING:
            raise Unanswered(f"MLflow at {address} did not answer as it should ({said}).") from error
        raise StageError(reasons.REGISTRY_REFUSED, f"MLflow at {address} refused the entry: {said}") from error


@contextmanager
def store_errors(store: object) -> Iterator[None]:
    """MLflow's and sqlite's errors with the file ``store`` as one sentence.

    Raises:
        StageError: ``RegistryUnreachable``, ``RegistryRefused``.
    """
    try:
        yield
    except Exception as error:
        fault = store_fault(error, store)
        if fault is None:
            raise
        raise fault from error


def store_fault(error: Exception, store: object) -> StageError | None:
    """Return what an exception says of the file; ``None`` if it says nothing."""
    said = first_line(error)
    if "database is locked" in str(error):
        return StageError(reasons.REGISTRY_UNREACHABLE, f"{store} is locked by another program; close what writes to it.")
    if "out-of-date database schema" in str(error):
        upgrade = f"back it up and run: mlflow db upgrade sqlite:///{store}"
        return StageError(reasons.REGISTRY_REFUSED, f"{store} is of another release of MLflow: {upgrade}")
    if type(error).__name__ == "MlflowException":
        return StageError(reasons.REGISTRY_REFUSED, f"MLflow's store {store} refused the entry: {said}")
    return None
