"""What an API server answers, as one sentence for the user and an exit code."""

from __future__ import annotations

import re

from finetune_operator.api.finetunerun import KIND
from finetune_operator.loop.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound, Timeout, Transient

from . import exitcodes
from .errors import CommandError
from .objects import causes, is_not_served

_DENIED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "[^"]*"'
    r'(?: in the namespace "(?P<namespace>[^"]*)"| at the cluster scope)?'
)
_ANONYMOUS = "system:anonymous"


def refusal_of(error: ApiError, server: str, address: str) -> CommandError:
    """The refusal for a failed call.

    Args:
        error: how it failed.
        server: how a sentence calls the cluster: ``context b``.
        address: of its API server.
    """
    if isinstance(error, Forbidden):
        return CommandError([_forbidden(error, server)], exitcodes.NO_PERMISSION)
    if is_not_served(error):
        sentence = f"{server}: the cluster has no {KIND}: whoever administers it must install the operator and its CRD."
        return CommandError([sentence], exitcodes.UNAVAILABLE)
    if isinstance(error, Timeout):
        return CommandError([f"{server}: {address} does not answer; try again."], exitcodes.TRY_AGAIN)
    if isinstance(error, Transient):
        if error.code:
            return CommandError([f"{server}: the API server cannot answer now: {error.message}; try again."], exitcodes.TRY_AGAIN)
        certificate = getattr(error.__cause__, "certificate_error", None)
        if certificate is not None:
            words = getattr(certificate, "verify_message", certificate)
            return CommandError(
                [f"{server}: {address} cannot be trusted: {words}; the kubeconfig lacks its certificate-authority."]
            )
        return CommandError([f"{server}: {address} cannot be reached: {_network(error)}."], exitcodes.TRY_AGAIN)
    if isinstance(error, AlreadyExists):
        return CommandError([f"{server}: {error.message}; choose another name."])
    if isinstance(error, Conflict):
        return CommandError(
            [f"{server}: the run was changed or made anew meanwhile; look at it and try again."], exitcodes.TRY_AGAIN
        )
    if isinstance(error, Invalid):
        return CommandError(causes(error))
    return CommandError([f"{server}: {error.message}"], exitcodes.NO_INPUT if isinstance(error, NotFound) else exitcodes.FAILED)


def _forbidden(error: Forbidden, server: str) -> str:
    denied = _DENIED.search(error.message)
    if error.code == 401 or (denied and denied["user"] == _ANONYMOUS):
        return f"{server}: the cluster does not know you (Unauthorized): log in again (oc login), or choose another --context."
    if denied is None:
        return f"{server}: {error.message}"
    where = f"in namespace {denied['namespace']}" if denied["namespace"] else "in all namespaces"
    role = "view" if denied["verb"] in ("get", "list", "watch") else "edit"
    return (
        f"{server}: {denied['user']} may not {denied['verb']} {denied['resource']} {where};"
        f" whoever administers it can give the role {role} there."
    )


def _network(error: Transient) -> str:
    """Why there is no connection, in the words of the system."""
    system = getattr(error.__cause__, "os_error", None)
    return str(getattr(system, "strerror", None) or system or error.message).rstrip(".")
