"""Registries that require tokens, passwords or a certificate, and pull secrets."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from certificates import self_signed
from finetune_contract.uris import ImageReference
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.registry import Registry
from finetune_stages.sources.registry_login import Login
from registry_server import ARTIFACT_CONFIG, RegistryServer, titled
from stages.model.images import OneAnswer, obtain, rejection, same
from web_server import Answer, Request, Server, unused_port

pytestmark = pytest.mark.go
NOT_LISTED = "is not allowed here; use one of allowedHosts.images in the operator's configuration"

ASK = "ask the administrator of the registry to correct its configuration, or use another registry."


class Tokens(Server):
    """Gives tokens to one user and to one owner of a refresh token."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[str] = []
        self.redirect = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        self.queries.append(request.path)
        if self.redirect:
            return Answer(307, {"Location": self.redirect})
        right = base64.b64encode(b"frodo:baggins").decode()
        if request.headers.get("authorization") == f"Basic {right}" or b"refresh_token=ring" in body:
            return Answer(200, {"Content-Type": "application/json"}, b'{"access_token": "any"}')
        return Answer(401, {"Content-Type": "application/json"}, b"{}")


def secret(host: str, **entry: str) -> str:
    return json.dumps({"auths": {host: entry}})


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_registry_with_tokens(context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> None:
    with Tokens() as tokens, RegistryServer(tmp_path / "closed", tokens=f"{tokens.url}/token") as server:
        server.push("team/closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        uri = f"oci://{server.host}/team/closed:1"
        start = f"model.uri: {uri}: {server.host} denies access"
        assert rejection(context, uri) == (
            "ModelForbidden",
            f"{start} without credentials, or the image does not exist (status 401); set model.pullSecretRef, or correct model.uri.",
        )
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret("quay.io", auth=basic("frodo:baggins")))
        assert rejection(context, uri) == (
            "ModelForbidden",
            f"{start} (status 401), and the pull secret has credentials for quay.io only; add them for {server.host}.",
        )
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, auth=basic("frodo:sauron")))
        assert rejection(context, uri) == (
            "ModelForbidden",
            (
                f"{start} with the credentials of the pull secret (status 401); correct them in the Secret of model.pullSecretRef, or allow their"
                " owner to pull the image."
            ),
        )
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(f"{server.host}/team", username="frodo", password="baggins"))
        assert same(obtain(context, uri), tiny_model)
        assert "scope=repository%3Ateam%2Fclosed%3Apull" in tokens.queries[-1]
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, identitytoken="ring"))
        assert obtain(context, uri).reused


def test_the_server_for_tokens_must_be_allowed(
    context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    with (
        Tokens() as tokens,
        RegistryServer(tmp_path / "closed", tokens=f"{tokens.url.replace('127.0.0.1', 'localhost')}/token") as server,
    ):
        server.push("team/closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, auth=basic("frodo:baggins")))
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"images": ["127.0.0.1"]}')
        uri = f"oci://{server.host}/team/closed:1"
        assert rejection(context, uri) == ("HostNotAllowed", f"model.uri: host localhost {NOT_LISTED} (127.0.0.1).")
        assert tokens.queries == []
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"images": ["127.0.0.1", "localhost"]}')
        assert same(obtain(context, uri), tiny_model)
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"images": ["quay.io"]}')
        assert rejection(context, uri) == ("HostNotAllowed", f"model.uri: host 127.0.0.1 {NOT_LISTED} (quay.io).")


class OtherBlobs(OneAnswer):
    """A registry whose blobs are on another host, as those of many registries are in an S3 bucket."""

    elsewhere = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        return Answer(307, {"Location": self.elsewhere}) if "/blobs/" in request.path else super().answer(request, body)


def test_the_server_of_the_blobs_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = f"sha256:{hashlib.sha256(b'blob').hexdigest()}"
    with OtherBlobs() as server, OneAnswer() as other:
        server.elsewhere, other.content = f"{other.url.replace('127.0.0.1', 'localhost')}/blob", b"blob"
        image = ImageReference(server.url.removeprefix("http://"), "team/blobs", "1")
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"images": ["127.0.0.1"]}')
        with Registry(image, Login(), MODEL) as client, pytest.raises(StageError) as caught:
            list(client.read(digest, 0, 4))
        assert (caught.value.reason.name, caught.value.message) == (
            "HostNotAllowed", f"model.uri: host localhost {NOT_LISTED} (127.0.0.1).",
        )  # fmt: skip
        assert other.requests == []
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"images": ["127.0.0.1", "localhost"]}')
        with Registry(image, Login(), MODEL) as client:
            assert b"".join(client.read(digest, 0, 4)) == b"blob"


def test_a_token_that_does_not_end(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with OneAnswer() as tokens, OneAnswer() as server:
        tokens.content = b" " * (2 << 20)
        server.status, server.challenge = 401, f'Bearer realm="{tokens.url}/x",service="s"'
        host = server.url.removeprefix("http://")
        assert rejection(context, f"oci://{host}/x:1") == (
            "ModelNotFound",
            (
                f"model.uri: oci://{host}/x:1: the token of {tokens.url.removeprefix('http://')} is larger than 1 MiB; push the image again, or use"
                " another registry."
            ),
        )


def test_a_refresh_token_follows_no_redirect(
    context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    with (
        Tokens() as tokens, Tokens() as other,
        RegistryServer(tmp_path / "closed", tokens=f"{tokens.url}/token") as server,
    ):  # fmt: skip
        server.push("team/closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, identitytoken="ring"))
        tokens.redirect = f"{other.url}/token"
        reason, message = rejection(context, f"oci://{server.host}/team/closed:1")
    assert other.queries == []
    assert (reason, "status 307" in message) == ("ModelNotFound", True)


def test_a_registry_with_passwords(context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "closed", password=True) as server:
        server.push("closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        uri = f"oci://{server.host}/closed:1"
        assert rejection(context, uri)[0] == "ModelForbidden"
        content = secret(f"http://{server.host}/v2/", auth=basic("frodo:baggins"))
        monkeypatch.setenv("OCI_PULL_SECRET_MODEL_DOWNLOAD", content)  # as in the pipelines
        assert same(obtain(context, uri), tiny_model)


NOT_FOR_DOCKER = "create it with oc create secret docker-registry."
SECRETS = [
    ("frodo:baggins", "is not JSON"),
    ("{}", "has no auths"),
    ('{"auths": []}', "has no auths"),
    ('{"credsStore": "desktop"}', "refers to a credential helper, which a pod does not have"),
    (secret("{host}", auth="%%%"), "has an auth for {host} that is not Base64"),
    (secret("{host}", auth=basic("frodo")), "has an auth for {host} that is not <user>:<password> in Base64"),
    (secret("{host}", email="frodo@shire"), "has neither auth nor username and password for {host}"),
]


@pytest.mark.parametrize(("content", "words"), SECRETS)
def test_a_pull_secret_that_cannot_be_used(
    context: Context, monkeypatch: pytest.MonkeyPatch, registry: RegistryServer, content: str, words: str
) -> None:
    monkeypatch.setenv("FINETUNE_PULL_SECRET", content.replace("{host}", registry.host))
    found = rejection(context, f"oci://{registry.host}/x:1")
    expected = f"model.pullSecretRef: the content of the Secret {words.replace('{host}', registry.host)}; {NOT_FOR_DOCKER}"
    assert found == ("ModelForbidden", expected)


def test_credentials_are_not_sent_unencrypted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with OneAnswer() as server:
        server.status, server.challenge = 401, 'Bearer realm="http://tokens.example.com/x",service="s"'
        host = server.url.removeprefix("http://")
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(host, auth=basic("frodo:baggins")))
        assert rejection(context, f"oci://{host}/x:1") == (
            "ModelForbidden",
            (
                f"model.uri: oci://{host}/x:1: the pull secret would be sent to tokens.example.com unencrypted; use a registry whose tokens come"
                " from https://."
            ),
        )


def test_a_server_for_tokens_that_does_not_exist(context: Context) -> None:
    with OneAnswer() as server, OneAnswer() as tokens:
        tokens.status = 404
        server.status, server.challenge = 401, f'Bearer realm="{tokens.url}/token"'
        host = server.url.removeprefix("http://")
        assert rejection(context, f"oci://{host}/x:1") == (
            "ModelNotFound",
            f"model.uri: oci://{host}/x:1: the server for tokens of {server.url} does not exist at its address; {ASK}",
        )


def test_a_certificate_is_trusted_through_the_bundle(
    context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setattr("finetune_stages.sources.registry.is_loopback", lambda _host: False)  # as a registry elsewhere
    with RegistryServer(tmp_path / "tls", certificate=certificate) as server:
        server.push("tiny:1", titled(tiny_model), ARTIFACT_CONFIG)
        uri = f"oci://{server.host}/tiny:1"
        problem = "has a certificate that is not trusted (self-signed certificate); set its CA in model.caRef."
        assert rejection(context, uri) == (
            "ModelUntrusted", f"model.uri: {uri}: https://{server.host} {problem}",
        )  # fmt: skip
        monkeypatch.setenv("FINETUNE_SOURCE_CA", str(certificate))
        assert same(obtain(context, uri), tiny_model)


def test_a_tag_that_does_not_exist(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    registry.push("exists:1", titled(tiny_model), ARTIFACT_CONFIG)
    server = f"http://{registry.host}"
    assert rejection(context, f"oci://{registry.host}/exists:2") == (
        "ModelNotFound",
        f"model.uri: oci://{registry.host}/exists:2: {server} has no repository exists with the tag 2; correct model.uri.",
    )
    digest = f"sha256:{'0' * 64}"
    assert rejection(context, f"oci://{registry.host}/exists@{digest}") == (
        "ModelNotFound",
        f"model.uri: oci://{registry.host}/exists@{digest}: {server} has no such image in exists; correct the digest.",
    )


def test_a_registry_that_is_gone(context: Context) -> None:
    host = f"localhost:{unused_port()}"
    reason, message = rejection(context, f"oci://{host}/x:1")
    assert reason == "ModelUnreachable"
    assert message.startswith(f"model.uri: oci://{host}/x:1: http://{host} is unreachable or sent an invalid response (")
