"""Models in S3, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from finetune_contract.documents import ModelInputs
from finetune_contract.uris import S3Location
from finetune_stages.model import s3 as s3_models
from finetune_stages.model.check import Requirements
from finetune_stages.model.s3 import S3Model
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources import downloads
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.uri import parse_uri
from s3_server import S3Server
from tcp_proxy import TcpProxy

pytestmark = pytest.mark.go
IN_SECRET = "in the Secret that model.secretRef names (default: s3-secret)."


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the owner of the server, and no others that boto3 reads."""
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_S3_ENDPOINT", "FINETUNE_SOURCE_CA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in S3Server.KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(tmp_path: Path, tiny_model: Path) -> Iterator[S3Server]:
    """A server with a model in a bucket, and other objects beside it."""
    with S3Server(tmp_path / "s3") as server:
        server.bucket("models")
        upload(server, "llama/tiny/", tiny_model)
        for key in ("llama/tiny/pytorch_model.bin", "llama/tiny/onnx/model.onnx", "llama/notes.txt"):
            server.client.put_object(Bucket="models", Key=key, Body=b"0")
        yield server


def upload(server: S3Server, prefix: str, folder: Path) -> None:
    for file in folder.iterdir():
        server.client.put_object(Bucket="models", Key=f"{prefix}{file.name}", Body=file.read_bytes())


@pytest.fixture
def read(run_stage_program: Any, s3: S3Server) -> Any:
    """Runs the stage with the keys of the server's owner."""

    return lambda uri: run_stage_program("model", ModelInputs(uri, endpoint=s3.url), environment=S3Server.KEYS)


@pytest.mark.parametrize("uri", ["s3://models/llama/tiny/", "s3://models/llama/tiny"])
def test_a_model_is_downloaded_once_and_only_what_is_needed(
    read: Any, stage: Any, s3: S3Server, tiny_model: Path, uri: str
) -> None:
    first = read(uri)
    assert first.code == 0, first.errors
    assert first.result.message.endswith("from s3://models/llama/tiny/")
    entry = stage.linked()
    assert {path.name for path in entry.iterdir()} == {*(path.name for path in tiny_model.iterdir()), ".finetune.json"}
    assert all((entry / path.name).read_bytes() == path.read_bytes() for path in tiny_model.iterdir())
    assert all(path.stat().st_mode & 0o777 == 0o664 for path in entry.iterdir())
    assert stage.nothing_is_left()
    stage.as_another_run()
    s3.client.put_object(Bucket="models", Key="llama/tiny/training.log", Body=b"0")  # not a part of the model
    again = read(uri)
    assert again.result.message.startswith("the same as run demo: "), again.output
    s3.client.put_object(Bucket="models", Key="llama/tiny/README.md", Body=b"another one")
    stage.as_another_run("third")
    changed = read(uri)
    assert changed.code == 0, changed.errors
    assert not changed.result.reused
    assert changed.result.outputs["digest"] != first.result.outputs["digest"]
    output = first.output + first.errors + changed.output + first.message
    assert not [value for value in S3Server.KEYS.values() if value in output]


def test_an_entry_of_the_cache_is_used_under_another_spelling(read: Any, stage: Any) -> None:
    assert read("s3://models/llama/tiny").code == 0
    stage.as_another_run()
    again = read("s3://models/llama/tiny/")
    assert again.result.reused, again.output
    assert "downloading" not in again.output


SENTENCES = [
    ("s3://models/none/", {}, "ModelNotFound", "model.uri: s3://models/none/ has no objects; correct the prefix."),
    ("s3://models/llama/notes.txt", {}, "ModelNotFound", "model.uri: s3://models/llama/notes.txt is one object, and a model is several; set the prefix of all its objects."),
    ("s3://models/llama/*", {}, "ModelNotFound", "model.uri: s3://models/llama/* is a pattern, and a model is one directory; set s3://<bucket>/<prefix>/."),
    ("s3://models/llama/", {}, "ModelIncomplete", "s3://models/llama/: config.json is missing; use a model saved by transformers."),
    ("s3://nothing/x/", {}, "ModelNotFound", "model.uri: s3://nothing/x/: {url} has no bucket nothing; correct model.uri, or set model.endpoint to the server that has it."),
    ("s3://models/llama/tiny/", {"AWS_ACCESS_KEY_ID": "AKNOBODY"}, "ModelForbidden", f"model.uri: s3://models/llama/tiny/: {{url}} does not know the access key; correct AWS_ACCESS_KEY_ID {IN_SECRET}"),
    ("s3://models/llama/tiny/", {"AWS_SECRET_ACCESS_KEY": "another-secret"}, "ModelForbidden", f"model.uri: s3://models/llama/tiny/: the secret key does not belong to the access key; correct AWS_SECRET_ACCESS_KEY {IN_SECRET}"),
    ("s3://models/llama/tiny/", {"AWS_SESSION_TOKEN": "a-session-token"}, "ModelForbidden", f"model.uri: s3://models/llama/tiny/: the session token is not valid; renew or remove AWS_SESSION_TOKEN {IN_SECRET}"),
    ("s3://models/llama/tiny/", {"AWS_SECRET_ACCESS_KEY": ""}, "S3CredentialsMissing", f"model.uri: s3://models/llama/tiny/: AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY; set both {IN_SECRET}"),
    ("s3://models/llama/tiny/", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "S3CredentialsMissing", f"model.uri: s3://models/llama/tiny/: needs an access key, and there is none; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY {IN_SECRET}"),
    ("s3://models/llama/tiny/", {"FINETUNE_SOURCE_CA": __file__}, "ModelUntrusted", f"model.caRef: {__file__} has no certificates in PEM format ([X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found); correct the ConfigMap."),
    ("s3://models/broken/", {}, "ModelCorrupt", "s3://models/broken/: config.json is not JSON (Expecting value: line 1 column 1 (char 0)); download or save the model again."),
]  # fmt: skip


def rejection(context: Context, uri: str, endpoint: str) -> tuple[str, str]:
    location = parse_uri(uri, MODEL)
    assert isinstance(location, S3Location)
    with pytest.raises(StageError) as caught:
        S3Model(context, location, endpoint, None).obtain(context, Requirements())
    return caught.value.reason.name, caught.value.message


@pytest.mark.parametrize(("uri", "environment", "reason", "sentence"), SENTENCES)
def test_each_fault_has_a_reason_and_one_sentence(
    context: Context, keys: None, monkeypatch: pytest.MonkeyPatch, s3: S3Server, tiny_model: Path, uri: str, environment: dict[str, str], reason: str, sentence: str,
) -> None:  # fmt: skip
    upload(s3, "broken/", tiny_model)
    s3.client.put_object(Bucket="models", Key="broken/config.json", Body=b"<html>")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rejection(context, uri, s3.url) == (reason, sentence.replace("{url}", s3.url))


def test_more_objects_than_a_model_has(context: Context, keys: None, monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    monkeypatch.setattr(s3_models, "MOST_OBJECTS", 3)
    assert rejection(context, "s3://models/llama/tiny/", s3.url) == (
        "ModelNotFound", "model.uri: s3://models/llama/tiny/ has more than 3 objects; set the prefix of one model.",
    )  # fmt: skip


def test_a_certificate_is_trusted_through_the_bundle(
    context: Context, keys: None, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    with S3Server(tmp_path / "tls", certificate=(certificate, certificate)) as server:
        server.bucket("models")
        upload(server, "tiny/", tiny_model)
        reason, message = rejection(context, "s3://models/tiny/", server.url)
        assert reason == "ModelUntrusted"
        problem = "is not trusted (certificate verify failed: self-signed certificate); set its CA in model.caRef."
        assert message == f"model.uri: s3://models/tiny/: the certificate of {server.url} {problem}"
        monkeypatch.setenv("FINETUNE_SOURCE_CA", str(certificate))
        assert (
            S3Model(context, S3Location("models", "tiny"), server.url, None).obtain(context, Requirements()).name
            == "s3://models/tiny/"
        )


def test_a_download_that_breaks_off_is_resumed_in_a_later_attempt(
    keys: None, monkeypatch: pytest.MonkeyPatch, s3: S3Server, workspace_context: Any, tiny_model: Path
) -> None:
    """Complete ranges are not downloaded again, and the result is that of one download."""
    monkeypatch.setattr(downloads, "PART", 64 << 10)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    location = S3Location("models", "llama/tiny")
    with TcpProxy(s3.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        monkeypatch.setattr(downloads, "CONNECTIONS", 1)
        attempts = ["1.1"]
        first, ranges = workspace_context("1.1"), []
        model = S3Model(first, location, url, None)
        original = downloads._fetch

        def fetch(file: Any, begin: int, transfer: Any) -> None:
            ranges.append((file.target.name, begin))
            if attempts == ["1.1"] and ranges[-1] == ("model.safetensors", 2 * downloads.PART):
                proxy.limit = 0
            original(file, begin, transfer)

        monkeypatch.setattr(downloads, "_fetch", fetch)
        with pytest.raises(StageError) as caught:
            model.obtain(first, Requirements())
        assert caught.value.reason.name == "ModelUnreachable"
        proxy.limit = None
        attempts.append("1.2")
        before, ranges[:] = list(ranges), []
        second = workspace_context("1.2")
        obtained = S3Model(second, location, url, None).obtain(second, Requirements())
    assert (obtained.entry / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert not {*before[:-1]} & {*ranges}
    assert not list(obtained.entry.glob("*.ranges"))


def test_a_server_that_is_gone(context: Context, keys: None) -> None:
    reason, message = rejection(context, "s3://models/llama/tiny/", "http://127.0.0.1:1")
    assert reason == "ModelUnreachable"
    assert message.startswith("model.uri: s3://models/llama/tiny/: http://127.0.0.1:1 is unreachable or sent an invalid response")
