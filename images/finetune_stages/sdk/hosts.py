"""Check of a host before a program contacts it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from finetune_contract import reasons
from finetune_contract.hosts import HostUse, allowed_hosts, host_of, is_allowed

from .fault import StageError


def require_allowed(url: str, use: HostUse, field: str, environment: Mapping[str, str] = os.environ) -> None:
    """Reject a URL whose host the operator's configuration does not allow for a use.

    Args:
        url: the address.
        use: what it is contacted as.
        field: field of the spec that names the address, for the message.
        environment: that of the program.

    Raises:
        StageError: ``HostNotAllowed``.
    """
    allowed = allowed_hosts(environment)
    if not is_allowed(url, use, allowed):
        listed = ", ".join(allowed[use]) or "none"
        raise StageError(
            reasons.HOST_NOT_ALLOWED,
            f"{field}: host {host_of(url)} is not allowed here; use one of allowedHosts.{use} in the operator's configuration ({listed}).",
        )
