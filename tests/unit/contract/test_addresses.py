"""Addresses that programs in a cluster never contact, and private ones."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.addresses import embedded, forbidden_kind, is_private, parse_address

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.0.0.1", "loopback"), ("127.255.255.254", "loopback"), ("::1", "loopback"), ("0.0.0.0", "unspecified"), ("0.1.2.3", "unspecified"),
        ("::", "unspecified"), ("169.254.169.254", "metadata"), ("169.254.170.2", "metadata"), ("169.254.170.23", "metadata"),
        ("100.100.100.200", "metadata"), ("168.63.129.16", "metadata"), ("fd00:ec2::254", "metadata"), ("fd00:ec2:0:0::254", "metadata"),
        ("169.254.1.1", "link-local"), ("fe80::1", "link-local"), ("fe80::1%eth0", "link-local"), ("febf::1", "link-local"),
        ("224.0.0.1", "multicast"), ("ff02::1", "multicast"), ("255.255.255.255", "broadcast"),
        ("::ffff:127.0.0.1", "loopback"), ("::ffff:a9fe:a9fe", "metadata"), ("::127.0.0.1", "loopback"), ("::ffff:0:127.0.0.1", "loopback"),
        ("2002:7f00:1::", "loopback"), ("2002:a9fe:a9fe::1", "metadata"), ("64:ff9b::a9fe:a9fe", "metadata"), ("64:ff9b:1::7f00:1", "loopback"),
        ("2001:0:7f00:1::", "loopback"), ("2001:0:808:808:0:0:5601:5601", "metadata"),
        ("8.8.8.8", None), ("126.255.255.255", None), ("128.0.0.1", None), ("169.253.255.255", None), ("100.100.100.201", None),
        ("10.0.0.1", None), ("192.168.0.1", None), ("fd00::1", None), ("fec0::1", None), ("2606:4700::1111", None), ("::ffff:8.8.8.8", None),
        ("2002:808:808::", None), ("64:ff9b::808:808", None),
    ],
)  # fmt: skip
def test_addresses_of_the_node_and_the_cloud_in_every_form(text: str, kind: str | None) -> None:
    address = parse_address(text)
    assert address is not None
    assert forbidden_kind(address) == kind


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("10.1.2.3", True), ("172.16.0.1", True), ("172.31.255.255", True), ("192.168.255.255", True), ("100.64.0.1", True), ("100.127.255.255", True),
        ("fc00::1", True), ("fdff::1", True), ("fec0::1", True), ("::ffff:10.0.0.1", True), ("64:ff9b::a00:1", True), ("2002:c0a8:1::", True),
        ("9.255.255.255", False), ("11.0.0.1", False), ("172.15.255.255", False), ("172.32.0.1", False), ("100.63.255.255", False),
        ("100.128.0.1", False), ("192.0.2.1", False), ("8.8.8.8", False), ("2606:4700::1111", False), ("fe00::1", False),
    ],
)  # fmt: skip
def test_private_addresses(text: str, private: bool) -> None:
    address = parse_address(text)
    assert address is not None
    assert is_private(address) is private


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "127.0.0.1:80", "::1%", "a::b::c"])
def test_only_the_canonical_forms_are_addresses(text: str) -> None:
    assert (parse_address(text) is None) is (text != "::1%")


@given(V4)
def test_an_address_in_ipv6_is_as_forbidden_and_as_private_as_it_is_itself(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    outer = [
        ipaddress.IPv6Address((0xFFFF << 32) | number), ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ipaddress.IPv6Address((0x64FF9B << 96) | number), ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
    ]  # fmt: skip
    for address in outer:
        assert inner in embedded(address)
        assert forbidden_kind(inner) is None or forbidden_kind(address) is not None
        assert is_private(address) or not is_private(inner)


@given(V4 | V6)
def test_what_the_standard_library_calls_local_is_forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        assert forbidden_kind(address) is not None


@given(V6)
def test_global_addresses_without_an_inner_one_are_public(address: ipaddress.IPv6Address) -> None:
    if not embedded(address) and address.is_global:
        assert forbidden_kind(address) in (None, "multicast")
        assert not is_private(address)
