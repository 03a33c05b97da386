"""Hosts that the programs may contact, and addresses that may receive a registry token. Rules for operator and programs alike."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args
from urllib.parse import urlsplit

HostUse = Literal["registries", "hubs", "objectStores", "images", "hosts"]
"""What a host is contacted as: a model registry, a hub of Hugging Face, an S3 server, a registry of images, or a web server with data."""
HOST_USES: tuple[HostUse, ...] = get_args(HostUse)
ALLOWED_HOSTS_VARIABLE = "FINETUNE_ALLOWED_HOSTS"
"""Environment variable with the allowed hosts, as a JSON object of lists by use; a use without a list has no limit."""
HOST_PATTERN = r"^(\*\.)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$|^[0-9A-Fa-f]*(:[0-9A-Fa-f.]*){2,8}$"
"""A host name, ``*.`` and a domain for all names below it, or an IP address; without scheme and port."""
HUB, AWS = "https://huggingface.co", "https://s3.amazonaws.com"
"""The servers of hub ids and of s3:// without an endpoint."""
_INSIDE = (".svc", ".svc.cluster.local")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_IPV6 = re.compile(r"[0-9a-f]*(:[0-9a-f.]*){2,8}")


def host_of(url: str) -> str:
    """Return the host of a URL in lower case, without port and brackets; empty if it has none or is not a URL."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_host(text: str) -> bool:
    """Return whether a text in lower case is a host name or an IP address.

    Zones (``fe80::1%eth0``) and other characters are excluded: such a text can end like an allowed domain and lead elsewhere.
    """
    return bool(_NAME.fullmatch(text) or _IPV6.fullmatch(text))


def matches(host: str, patterns: Iterable[str]) -> bool:
    """Return whether a host is one of the patterns, or below one that begins with ``*.``."""
    name = host.lower()
    return is_host(name) and any(
        name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern for pattern in map(str.lower, patterns)
    )


def is_allowed(url: str, use: HostUse, allowed: Mapping[str, Iterable[str]]) -> bool:
    """Return whether a program may contact the host of a URL for a use."""
    return use not in allowed or matches(host_of(url), allowed[use])


def may_receive_token(url: str, allowed: Mapping[str, Iterable[str]]) -> bool:
    """Return whether a registry token may be sent to a URL: by https, inside the cluster or the machine, or to a listed registry."""
    host = host_of(url)
    if not host:
        return False
    return urlsplit(url).scheme == "https" or is_inside(host) or matches(host, allowed.get("registries", ()))


def is_inside(host: str) -> bool:
    """Return whether a host is this machine or a Service of the cluster."""
    return is_host(host) and (host.endswith(_INSIDE) or is_loopback(host))


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return is_host(host) and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the allowed hosts by use from a program's environment; empty without the variable."""
    found: dict[str, list[str]] = json.loads(environment.get(ALLOWED_HOSTS_VARIABLE) or "{}")
    return found
