"""Addresses that get the token of the registry."""

from __future__ import annotations

import json

import pytest

from finetune_contract.hosts import ALLOWED_HOSTS_VARIABLE
from finetune_stages.registration.rest import Access
from finetune_stages.sdk import StageError

TOKEN = {"REGISTRY_TOKEN": "t0ken"}
LISTED = {ALLOWED_HOSTS_VARIABLE: json.dumps({"registries": ["registry.example.com"]})}
BOUND = {"REGISTRY_HOST": "registry.example.com\n"}


@pytest.mark.parametrize(
    ("address", "environment"),
    [
        ("https://registry.example.com", TOKEN), ("http://registry.models.svc:8080", TOKEN), ("http://127.0.0.1:5000", TOKEN),
        ("http://registry.example.com", TOKEN | LISTED), ("https://registry.example.com:8443", TOKEN | BOUND),
    ],
)  # fmt: skip
def test_a_token_is_sent(address: str, environment: dict[str, str]) -> None:
    assert Access.of(address, environment).token == "t0ken"


def test_an_address_without_a_token_may_be_any() -> None:
    assert Access.of("http://registry.example.com", BOUND).token is None


@pytest.mark.parametrize(
    ("address", "environment", "reason", "message"),
    [
        (
            "http://registry.example.com", TOKEN, "TokenNotSent",
            ("registry.address: http://registry.example.com would receive the token unencrypted; use https:// or a Service of the cluster"
            " (<name>.<namespace>.svc)."),
        ),
        (
            "https://evil.example.com", TOKEN | BOUND, "TokenNotSent",
            ("registry.address: evil.example.com is not registry.example.com, to which REGISTRY_HOST in the Secret binds the token; correct the"
            " address, or use another Secret."),
        ),
        (
            "https://evil.example.com", LISTED, "HostNotAllowed",
            ("registry.address: host evil.example.com is not allowed here; use one of allowedHosts.registries in the operator's configuration"
            " (registry.example.com)."),
        ),
    ],
)  # fmt: skip
def test_a_token_is_not_sent(address: str, environment: dict[str, str], reason: str, message: str) -> None:
    with pytest.raises(StageError) as raised:
        Access.of(address, environment)
    assert (raised.value.reason.name, raised.value.message) == (reason, message)
