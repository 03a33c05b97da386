"""Hosts that programs may contact, and addresses that may receive a token."""

from __future__ import annotations

import json
import re

import pytest

from finetune_contract.hosts import (
    ALLOWED_HOSTS_VARIABLE,
    HOST_PATTERN,
    allowed_hosts,
    host_of,
    is_allowed,
    is_inside,
    is_loopback,
    matches,
    may_receive_token,
)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Registry.Example.com:8080/api", "registry.example.com"), ("http://[::1]:80", "::1"), ("http://a.svc./x", "a.svc"),
        ("https://user:pass@b.example.com", "b.example.com"), ("registry", ""), ("http://[", ""), ("https://good@evil.example", "evil.example"),
    ],
)  # fmt: skip
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://registry.example.com", True), ("http://registry.example.com", False), ("http://10.0.0.1:8080", False),
        ("http://registry.models.svc:8080", True), ("http://registry.models.svc.cluster.local", True), ("http://svc", False),
        ("http://registry.svc.example.com", False), ("http://a.svc.cluster.local.example.com", False), ("http://asvc", False),
        ("http://127.0.0.1:5000", True), ("http://localhost:5000", True), ("http://[::1]", True), ("http://localhost.example.com", False),
        ("http://listed.example.com:80", True), ("http://a.below.example.com", True), ("http://below.example.com", False),
        ("ftp://registry.example.com", False), ("", False),
    ],
)  # fmt: skip
def test_a_token_is_sent_by_https_or_inside_the_cluster_or_to_a_listed_registry(url: str, sent: bool) -> None:
    allowed = {"registries": ["listed.example.com", "*.below.example.com"], "hosts": ["registry.example.com"]}
    assert may_receive_token(url, allowed) is sent


def test_a_use_without_a_list_has_no_limit_and_an_empty_list_allows_nothing() -> None:
    assert is_allowed("https://a.example.com", "hubs", {})
    assert not is_allowed("https://a.example.com", "hubs", {"hubs": []})
    assert is_allowed("https://A.example.com", "hubs", {"hubs": ["a.Example.com"]})
    assert not is_allowed("no url", "hubs", {"hubs": ["*.example.com"]})
    assert not matches("evilexample.com", ["*.example.com"])


@pytest.mark.parametrize(
    "host",
    [
        "[fe80::1%25x.allowed.com]", "[fe80::1%x.allowed.com]", ".allowed.com", "a..allowed.com", "evil.com%2f.allowed.com",
        "evil.com\\\\.allowed.com", "evil.com .allowed.com", "evil.com\u3002x.allowed.com", "evil.com,.allowed.com",
    ],
)  # fmt: skip
def test_a_text_that_is_no_host_name_is_not_below_a_domain(host: str) -> None:
    allowed = {"hosts": ["*.allowed.com"], "registries": ["*.allowed.com"]}
    assert not matches(host, allowed["hosts"])
    assert not is_allowed(f"https://{host}/x", "hosts", allowed)
    assert not may_receive_token(f"http://{host}/x", allowed)
    assert not may_receive_token(f"http://{host.replace('allowed.com', 'svc')}/x", {})


@pytest.mark.parametrize("host", ["a.allowed.com", "A_b.allowed.com", "xn--bcher-kva.allowed.com", "a.b-c.allowed.com"])
def test_a_host_name_is_below_its_domain(host: str) -> None:
    assert is_allowed(f"https://{host}:8443/x", "hosts", {"hosts": ["*.allowed.com"]})


def test_an_address_with_a_zone_is_not_this_machine() -> None:
    assert not is_loopback("::1%x")
    assert matches("FD00::1", ["fd00::1"])
    assert not matches("fd00::1%x", ["fd00::1%x"])
    assert not matches("a\n.allowed.com", ["*.allowed.com"])


def test_programs_read_the_hosts_from_their_environment() -> None:
    assert allowed_hosts({}) == allowed_hosts({ALLOWED_HOSTS_VARIABLE: ""}) == {}
    assert allowed_hosts({ALLOWED_HOSTS_VARIABLE: json.dumps({"hubs": ["a"]})}) == {"hubs": ["a"]}


@pytest.mark.parametrize(
    ("host", "valid"),
    [("a.example.com", True), ("*.example.com", True), ("::1", True), ("10.0.0.1", True), ("https://a", False), ("a:80", False), ("*", False)],
)  # fmt: skip
def test_the_form_of_a_host(host: str, valid: bool) -> None:
    assert bool(re.search(HOST_PATTERN, host)) is valid


@pytest.mark.parametrize(
    ("host", "inside", "loopback"),
    [
        ("localhost", True, True), ("127.0.0.9", True, True), ("::1", True, True), ("10.0.0.1", False, False),
        ("registry.models.svc", True, False), ("localhost.example.com", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_hosts_of_the_machine_and_of_the_cluster(host: str, inside: bool, loopback: bool) -> None:
    assert (is_inside(host), is_loopback(host)) == (inside, loopback)
