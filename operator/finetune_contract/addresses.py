"""Network addresses that the programs contact in a cluster: never loopback, link-local and metadata addresses, private ones by configuration."""

from __future__ import annotations

import ipaddress
from typing import Literal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PrivateAddresses = Literal["allowed", "listed"]
"""Whether programs may connect to private addresses: to all, or to those of hosts in a list of ``allowedHosts``."""
PRIVATE_ADDRESSES_VARIABLE = "FINETUNE_PRIVATE_ADDRESSES"
"""Environment variable with one of :data:`PrivateAddresses`. The operator sets it in a cluster; without it, there is no rule."""
_FORBIDDEN = {
    "unspecified": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "metadata": (
        "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
        "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128",
    ),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "broadcast": ("255.255.255.255/32",),
}  # fmt: skip
"""Networks by kind. The metadata servers are those of AWS, ECS, EKS, Azure, Alibaba Cloud, Google Cloud and Oracle Cloud."""
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
"""RFC 1918, CGNAT (RFC 6598), unique local addresses (RFC 4193), and the site-local ones before them."""
_FORBIDDEN_NETWORKS = [(kind, ipaddress.ip_network(text)) for kind, texts in _FORBIDDEN.items() for text in texts]
_PRIVATE_NETWORKS = [ipaddress.ip_network(text) for text in _PRIVATE]
_IN_LAST_BITS = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))
"""Networks whose addresses end with an IPv4 address: mapped, compatible, translated (SIIT), and NAT64."""
_SIX_TO_FOUR, _TEREDO = ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32")


def parse_address(text: str) -> Address | None:
    """Return the address that a text is, without the name of an interface; ``None`` for any other text."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses to which a gateway may send what is sent to an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    bits = int(address)
    found = []
    if any(address in network for network in _IN_LAST_BITS):
        found.append(bits)
    if address in _SIX_TO_FOUR:
        found.append(bits >> 80)
    if address in _TEREDO:
        found += [bits >> 64, ~bits]  # server and client (RFC 4380)
    return tuple(ipaddress.IPv4Address(value & 0xFFFFFFFF) for value in found)


def forbidden_kind(address: Address) -> str | None:
    """Return the kind of an address that no program contacts in a cluster, such as ``loopback``; ``None`` for any other address."""
    every = (address, *embedded(address))
    return next((kind for one in every for kind, network in _FORBIDDEN_NETWORKS if one in network), None)


def is_private(address: Address) -> bool:
    """Return whether an address, or the IPv4 address in it, is in a private network."""
    return any(one in network for network in _PRIVATE_NETWORKS for one in (address, *embedded(address)))
