"""Check of a host before a program contacts it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from finetune_contract import reasons
from finetune_contract.addresses import PRIVATE_ADDRESSES_VARIABLE, forbidden_kind, parse_address
from finetune_contract.hosts import HostUse, allowed_hosts, host_of, is_allowed

from .fault import AddressNotAllowed, StageError


def require_allowed(url: str, use: HostUse, field: str, environment: Mapping[str, str] = os.environ) -> None:
    """Reject a URL whose host the operator's configuration does not allow for a use, or that has a forbidden address.

    Whether a name has such an address is known when it is resolved (:mod:`.address_guard`).

    Args:
        url: the address.
        use: what it is contacted as.
        field: field of the spec that names the address, for the message.
        environment: that of the program.

    Raises:
        StageError: ``HostNotAllowed``, ``AddressNotAllowed``.
    """
    allowed, host = allowed_hosts(environment), host_of(url)
    address = parse_address(host) if PRIVATE_ADDRESSES_VARIABLE in environment else None
    kind = forbidden_kind(address) if address else None
    if kind:  # the guard allows some of them to boto3, which gets credentials from there
        raise AddressNotAllowed(host, host, kind, subject=field)
    if not is_allowed(url, use, allowed):
        listed = ", ".join(allowed[use]) or "none"
        raise StageError(
            reasons.HOST_NOT_ALLOWED,
            f"{field}: host {host} is not allowed here; use one of allowedHosts.{use} in the operator's configuration ({listed}).",
        )
