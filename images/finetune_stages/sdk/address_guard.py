"""Guard of this process's connections in a cluster: it contacts no loopback, link-local or metadata address, and private ones by configuration.

An audit hook of Python sees the address of each connection just before it is made, whichever library makes it. So redirects are checked, and
a name that resolves to another address the second time changes nothing. Connections of native code raise no audit event; the libraries that
have such code (``hf_xet``) contact only servers that the hub of the platform names.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from finetune_contract.addresses import PRIVATE_ADDRESSES_VARIABLE, PrivateAddresses, forbidden_kind, is_private, parse_address
from finetune_contract.documents import SECRETS_VARIABLE
from finetune_contract.hosts import allowed_hosts, matches
from finetune_contract.uris import S3_ENDPOINT_KEYS

from .fault import AddressNotAllowed

Endpoint = tuple[str, int]
"""Host name or address, and port."""
_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_SERVERS = ("HF_ENDPOINT", *S3_ENDPOINT_KEYS[1:])
"""Variables with a URL of the platform. ``AWS_S3_ENDPOINT`` is a key of users' Secrets."""
_PORTS = {"http": 80, "https": 443}


class _Lookup(threading.local):
    """The host of the last lookup of a thread."""

    host = ""


@dataclass(frozen=True)
class AddressGuard:
    """Rules for the connections of a process.

    Attributes:
        private: which private addresses are allowed.
        listed: patterns of hosts, which may have private addresses.
        platform: servers that the platform names, such as proxies: they may have any address.
        credentials: addresses with the credentials of the pod, which only a client that has the address itself may contact.
    """

    private: PrivateAddresses
    listed: tuple[str, ...] = ()
    platform: frozenset[Endpoint] = frozenset()
    credentials: frozenset[Endpoint] = frozenset()
    _hosts: dict[Endpoint, str] = field(default_factory=dict)
    _of_platform: set[Endpoint] = field(default_factory=set)
    _of_listed: set[Endpoint] = field(default_factory=set)
    _last: _Lookup = field(default_factory=_Lookup)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> AddressGuard | None:
        """Return the guard that the operator asks for; ``None`` outside of a cluster."""
        private = environment.get(PRIVATE_ADDRESSES_VARIABLE)
        if not private:
            return None
        listed = tuple(pattern for patterns in allowed_hosts(environment).values() for pattern in patterns)
        rule: PrivateAddresses = "allowed" if private == "allowed" else "listed"
        return cls(rule, listed, frozenset(_platform(environment)), frozenset(_credentials(environment)))

    def install(self) -> None:
        """Check all connections of this process from now on. It cannot be undone."""
        original = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> list[Any]:
            found = original(host, *arguments, **options)
            self.note(host, found)
            return found

        socket.getaddrinfo = getaddrinfo
        sys.addaudithook(self.audit)

    def note(self, host: Any, found: Iterable[Any]) -> None:
        """Note which addresses a lookup found for a host."""
        name = (host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")).lower().rstrip(".")
        self._last.host = name
        for *_, address in found:
            endpoint = (str(address[0]), address[1])
            self._hosts[endpoint] = name
            if (name, endpoint[1]) in self.platform:
                self._of_platform.add(endpoint)
            if matches(name, self.listed):
                self._of_listed.add(endpoint)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check the address of a connection or a datagram; other events are ignored.

        Raises:
            AddressNotAllowed: the address is not allowed.
        """
        if event in _EVENTS and arguments[1] is not None and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
            self.require(str(arguments[1][0]), arguments[1][1])

    def require(self, text: str, port: int) -> None:
        """Check an address that this thread is about to connect to.

        Raises:
            AddressNotAllowed: the address is not allowed, or the text is a name.
        """
        endpoint, address = (text, port), parse_address(text)
        host = self._hosts.get(endpoint, text)
        if address is None:  # it would be resolved after this check
            raise AddressNotAllowed(host, text, "unresolved")
        if endpoint in self._of_platform or (endpoint in self.credentials and self._last.host == text):
            return
        kind = forbidden_kind(address)
        if kind:
            raise AddressNotAllowed(host, text, kind)
        is_listed = endpoint in self._of_listed or matches(text, self.listed)
        if self.private == "listed" and is_private(address) and not is_listed:
            raise AddressNotAllowed(host, text, "private", listable=True)


def install_guard(environment: Mapping[str, str] = os.environ) -> None:
    """Install the guard that the operator asks for, if any."""
    guard = AddressGuard.of(environment)
    if guard:
        guard.install()


def _platform(environment: Mapping[str, str]) -> Iterator[Endpoint]:
    """Yield the servers that the platform names in the environment: proxies, the hub, and an S3 server."""
    from_secrets = environment.get(SECRETS_VARIABLE, "").split(",")
    for name, value in environment.items():
        is_proxy = name.lower().endswith("_proxy") and name.lower() != "no_proxy"
        if value and (is_proxy or name in _SERVERS) and name not in from_secrets:
            yield from _endpoint(value)


def _credentials(environment: Mapping[str, str]) -> Iterator[Endpoint]:
    """Yield the servers of the identity that the platform gives the pod: of EKS, ECS, or the node."""
    yield from _endpoint(environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", ""))
    if environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        yield "169.254.170.2", _PORTS["http"]
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "false":
        yield "169.254.169.254", _PORTS["http"]


def _endpoint(url: str) -> Iterator[Endpoint]:
    """Yield host and port of a URL, if it has them; proxies may lack the scheme."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return
    if host and port:
        yield host.rstrip("."), port
