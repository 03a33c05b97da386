"""Which server a reference means, and which entry of a pull secret belongs to it."""

from __future__ import annotations

import base64
import json

import pytest

from finetune_contract.uris import ImageReference
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.registry import Registry
from finetune_stages.sources.registry_login import Login, login_for


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost:5000", True), ("localhost", True), ("127.0.0.1:80", True), ("10.0.0.1:80", False), ("localhost.example.com", False)],
)  # fmt: skip
def test_only_registries_of_this_machine_are_asked_without_tls(host: str, expected: bool) -> None:
    server = Registry(ImageReference(host, "m", "1"), Login(), MODEL).server
    assert server == f"{'http' if expected else 'https'}://{host}"


def test_docker_hub_has_another_host() -> None:
    assert Registry(ImageReference("docker.io", "m", "1"), Login(), MODEL).server == "https://registry-1.docker.io"


def entry(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


CONTENT = json.dumps({
    "auths": {
        "https://index.docker.io/v1/": entry("hub:a"), "quay.io": entry("quay:b:c"), "quay.io/team": entry("team:d"),
        "r.io:5000": {"username": "plain", "password": "e"}, "token.io": {"registrytoken": "f"},
    },
})  # fmt: skip


@pytest.mark.parametrize(
    ("registry", "repository", "expected"),
    [
        ("docker.io", "library/m", Login("hub", "a")),
        ("quay.io", "other/m", Login("quay", "b:c")),
        ("quay.io", "team/m", Login("team", "d")),
        ("quay.io", "teams/m", Login("quay", "b:c")),
        ("r.io:5000", "m", Login("plain", "e")),
        ("token.io", "m", Login(bearer="f")),
        ("r.io", "m", Login(others=("docker.io", "quay.io", "quay.io/team", "r.io:5000", "token.io"))),
    ],
)  # fmt: skip
def test_the_most_specific_entry_is_used(registry: str, repository: str, expected: Login) -> None:
    assert login_for(ImageReference(registry, repository, "1"), CONTENT, MODEL) == expected


def test_without_a_secret_there_are_no_credentials() -> None:
    for content in (None, "", " \n"):
        assert login_for(ImageReference("quay.io", "m", "1"), content, MODEL) == Login()
    assert "b:c" not in repr(login_for(ImageReference("quay.io", "m", "1"), CONTENT, MODEL))
