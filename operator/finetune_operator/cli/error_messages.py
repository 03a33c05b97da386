"""Errors of an API server as messages for the user, with exit codes."""

from __future__ import annotations

import re

from finetune_operator.api.finetunerun import KIND
from finetune_operator.loop.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound, Timeout, Transient

from . import exit_status
from .errors import CommandError
from .objects import causes, is_not_served

_DENIED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "[^"]*"'
    r'(?: in the namespace "(?P<namespace>[^"]*)"| at the cluster scope)?'
)
_ANONYMOUS = "system:anonymous"


def command_error(error: ApiError, server: str, address: str) -> CommandError:
    """Return the error of a command whose API call failed.

    Args:
        error: the error of the call.
        server: name of the cluster in messages, ``context b``.
        address: URL of the API server.
    """
    if isinstance(error, Forbidden):
        return CommandError([_forbidden(error, server)], exit_status.NO_PERMISSION)
    if is_not_served(error):
        sentence = f"{server}: {KIND} is not installed; ask an administrator to install the operator and its CRD."
        return CommandError([sentence], exit_status.UNAVAILABLE)
    if isinstance(error, Timeout):
        return CommandError([f"{server}: no response from {address}; try again."], exit_status.TRY_AGAIN)
    if isinstance(error, Transient):
        if error.code:
            return CommandError([f"{server}: the API server is unavailable: {error.message}; try again."], exit_status.TRY_AGAIN)
        certificate = getattr(error.__cause__, "certificate_error", None)
        if certificate is not None:
            detail = getattr(certificate, "verify_message", certificate)
            return CommandError(
                [f"{server}: the certificate of {address} is not trusted: {detail}; add certificate-authority to the kubeconfig."]
            )
        return CommandError(
            [f"{server}: cannot connect to {address}: {_network(error)}; check the network and try again."], exit_status.TRY_AGAIN
        )
    if isinstance(error, AlreadyExists):
        return CommandError([f"{server}: {error.message}; choose another name."])
    if isinstance(error, Conflict):
        return CommandError(
            [f"{server}: another client changed or replaced the run; check it and try again."], exit_status.TRY_AGAIN
        )
    if isinstance(error, Invalid):
        return CommandError(causes(error))
    return CommandError(
        [f"{server}: {error.message}"], exit_status.NO_INPUT if isinstance(error, NotFound) else exit_status.FAILED
    )


def _forbidden(error: Forbidden, server: str) -> str:
    denied = _DENIED.search(error.message)
    if error.code == 401 or (denied and denied["user"] == _ANONYMOUS):
        return f"{server}: authentication failed (Unauthorized); log in again (oc login) or choose another --context."
    if denied is None:
        return f"{server}: {error.message}"
    where = f"in namespace {denied['namespace']}" if denied["namespace"] else "in all namespaces"
    role = "view" if denied["verb"] in ("get", "list", "watch") else "edit"
    return (
        f"{server}: {denied['user']} may not {denied['verb']} {denied['resource']} {where};"
        f" ask an administrator for the role {role}."
    )


def _network(error: Transient) -> str:
    """Return the operating system's reason why the connection failed."""
    system = getattr(error.__cause__, "os_error", None)
    return str(getattr(system, "strerror", None) or system or error.message).rstrip(".")
