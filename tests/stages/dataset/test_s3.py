"""Data in S3, on a real server; only errors that it does not report on demand are simulated."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset import web
from finetune_stages.dataset.fetch import Source, find_source
from finetune_stages.dataset.source_request import TRAIN_SPLITS, SourceRequest
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources import downloads
from finetune_stages.sources.origin import DATASET
from s3_server import S3Server
from tcp_proxy import TcpProxy
from web_server import Answer, Request, Server, unused_port

pytestmark = pytest.mark.go
ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]}) + "\n"
    for number in range(100)
).encode()
IN_SECRET = "in the Secret that dataset.secretRef names (default: s3-secret)."


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server with a bucket of data."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        half = len(ROWS.splitlines(keepends=True)) // 2
        first, second = (b"".join(ROWS.splitlines(keepends=True)[part]) for part in (slice(half), slice(half, None)))
        objects = {
            "chat.jsonl": ROWS, "parts/a.jsonl": first, "parts/deep/b.jsonl": second, "parts/README.md": b"# Data", "parts/_SUCCESS": b"",
            "mixed/train.jsonl": first, "mixed/test.jsonl": second, "pictures/a.png": b"x", "bad/a.jsonl": first, "bad/b.jsonl": b"<html>",
            "empty.jsonl": b"", "with space/a.jsonl": ROWS,
        }  # fmt: skip
        server.client.create_bucket(Bucket="data")
        for key, content in objects.items():
            server.client.put_object(Bucket="data", Key=key, Body=content)
        yield server


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of the owner of the server, and no others that boto3 reads."""
    for name in (
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_PROFILE",
        "AWS_S3_ENDPOINT",
        "FINETUNE_SOURCE_CA",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in S3Server.KEYS.items():
        monkeypatch.setenv(name, value)
    return dict(S3Server.KEYS)


def context(workspace: Path, printed: list[str] | None = None) -> Context:
    document = StageDocument(2, "dataset", RunInfo("demo", "team-a", "0123456789abcdef"), {})
    made = Context(document, workspace, Attempt(1, 1), "0" * 64)
    made._print = print if printed is None else printed.append
    return made


def find(uri: str, endpoint: str, folder: Path, **fields: Any) -> Source:
    folder.mkdir(exist_ok=True)
    return find_source(SourceRequest(uri, DATASET, TRAIN_SPLITS, endpoint=endpoint, **fields), context(folder), folder)


def texts(source: Source) -> bytes:
    opened = source.open(range)
    return b"".join(text + b"\n" for text in opened.rows.texts())


def rejection(uri: str, endpoint: str, folder: Path, **fields: Any) -> tuple[str, str]:
    with pytest.raises(StageError) as caught:
        find(uri, endpoint, folder, **fields).open(range)
    return caught.value.reason.name, caught.value.message


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://data/chat.jsonl", ROWS),
        ("s3://data/parts/", ROWS),
        ("s3://data/parts/**", None),
        ("s3://data/parts/**/*.jsonl", ROWS),
        ("s3://data/ch?t.json[l]", ROWS),
        ("s3://data/with?space/*", ROWS),
        ("s3://data/parts/*.jsonl", b"".join(ROWS.splitlines(keepends=True)[:50])),
    ],
)
def test_an_object_a_prefix_and_a_glob(
    s3: S3Server, keys: dict[str, str], tmp_path: Path, uri: str, expected: bytes | None
) -> None:
    source = find(uri, s3.url, tmp_path / "scratch")
    if expected is None:  # a glob selects files of every name
        with pytest.raises(StageError) as caught:
            source.open(range)
        assert caught.value.message.startswith("s3://data/parts/README.md: is not JSON or JSON Lines and looks like Markdown")
    else:
        assert texts(source) == expected
        source.require_unchanged()


def test_files_that_are_left_out_are_named(s3: S3Server, keys: dict[str, str], tmp_path: Path) -> None:
    opened = find("s3://data/parts/", s3.url, tmp_path / "scratch").open(range)
    assert opened.notes == ("files that are not named like data are left out: README.md.",)
    assert opened.rows.label(60) == "row 11 (line 11) of s3://data/parts/deep/b.jsonl"


SENTENCES = [
    ("s3://data/nope.jsonl", {}, "DatasetNotFound", "dataset.uri: s3://data/nope.jsonl: there is no such object; correct the key."),
    ("s3://data/parts", {}, "DatasetNotFound", "dataset.uri: s3://data/parts: there is no such object, but there are objects below it; write s3://data/parts/ to read them."),
    ("s3://data/none/", {}, "DatasetNotFound", "dataset.uri: s3://data/none/ has no data files (nothing); files are named .jsonl, .json, .csv, .tsv, .parquet or .arrow."),
    ("s3://data/pictures/", {}, "DatasetNotFound", "dataset.uri: s3://data/pictures/ has no data files (only a.png); files are named .jsonl, .json, .csv, .tsv, .parquet or .arrow."),
    ("s3://data/*.parquet", {}, "DatasetNotFound", "dataset.uri: s3://data/*.parquet: no object matches; correct the pattern (* matches no /, ** does)."),
    ("s3://data/mixed/", {}, "DatasetUnreadable", "dataset.uri: s3://data/mixed/ has files of several splits (test.jsonl, train.jsonl); set dataset.uri to s3://data/mixed/train.jsonl and dataset.evalUri to s3://data/mixed/test.jsonl."),
    ("s3://data/bad/", {}, "DatasetUnreadable", "s3://data/bad/b.jsonl: is not JSON or JSON Lines and looks like a web page (HTML or XML); name the address or the path of the data itself."),
    ("s3://data/empty.jsonl", {}, "DatasetEmpty", "s3://data/empty.jsonl: has no rows; set a file with one chat row per line."),
    ("s3://nothing/x.jsonl", {}, "DatasetNotFound", "dataset.uri: s3://nothing/x.jsonl: {url} has no bucket nothing; correct dataset.uri, or set dataset.endpoint to the server that has it."),
    ("s3://nothing/x/", {}, "DatasetNotFound", "dataset.uri: s3://nothing/x/: {url} has no bucket nothing; correct dataset.uri, or set dataset.endpoint to the server that has it."),
    ("s3://UP/x.jsonl", {}, "DatasetNotFound", "dataset.uri: s3://UP/x.jsonl: {url} rejected the request with InvalidBucketName (status 400); correct dataset.uri."),
    ("s3://data/chat.jsonl", {"AWS_ACCESS_KEY_ID": "AKNOBODY"}, "DatasetForbidden", f"dataset.uri: s3://data/chat.jsonl: {{url}} does not know the access key; correct AWS_ACCESS_KEY_ID {IN_SECRET}"),
    ("s3://data/parts/", {"AWS_SECRET_ACCESS_KEY": "another-secret"}, "DatasetForbidden", f"dataset.uri: s3://data/parts/: the secret key does not belong to the access key; correct AWS_SECRET_ACCESS_KEY {IN_SECRET}"),
    ("s3://data/chat.jsonl", {"AWS_SECRET_ACCESS_KEY": "another-secret"}, "DatasetForbidden", f"dataset.uri: s3://data/chat.jsonl: the secret key does not belong to the access key; correct AWS_SECRET_ACCESS_KEY {IN_SECRET}"),
    ("s3://data/chat.jsonl", {"AWS_SESSION_TOKEN": "a-session-token"}, "DatasetForbidden", f"dataset.uri: s3://data/chat.jsonl: the session token is not valid; renew or remove AWS_SESSION_TOKEN {IN_SECRET}"),
    ("s3://data/chat.jsonl", {"AWS_SECRET_ACCESS_KEY": ""}, "S3CredentialsMissing", f"dataset.uri: s3://data/chat.jsonl: AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY; set both {IN_SECRET}"),
    ("s3://data/chat.jsonl", {"AWS_ACCESS_KEY_ID": " "}, "S3CredentialsMissing", f"dataset.uri: s3://data/chat.jsonl: AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID; set both {IN_SECRET}"),
    ("s3://data/chat.jsonl", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "S3CredentialsMissing", f"dataset.uri: s3://data/chat.jsonl: needs an access key, and there is none; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY {IN_SECRET}"),
    ("s3://data/chat.jsonl", {"FINETUNE_ALLOWED_HOSTS": '{"objectStores": ["s3.example.com"]}'}, "HostNotAllowed", "dataset.endpoint: host 127.0.0.1 is not allowed here; use one of allowedHosts.objectStores in the operator's configuration (s3.example.com)."),
    ("s3://data/chat.jsonl", {"FINETUNE_SOURCE_CA": __file__}, "DatasetUntrusted", f"dataset.caRef: {__file__} has no certificates in PEM format ([X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found); correct the ConfigMap."),
]  # fmt: skip


@pytest.mark.parametrize(("uri", "environment", "reason", "sentence"), SENTENCES)
def test_each_fault_has_a_reason_and_one_sentence(
    s3: S3Server, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, environment: dict[str, str], reason: str, sentence: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = rejection(uri, s3.url, tmp_path / "scratch")
    assert found == (reason, sentence.replace("{url}", s3.url))
    for value in {**keys, **environment}.values():
        assert len(value) < 6 or value == __file__ or value not in found[1]


def test_a_wrong_region_is_corrected_and_a_digest_is_checked(s3: S3Server, keys: dict[str, str], tmp_path: Path) -> None:
    assert texts(find("s3://data/chat.jsonl", s3.url, tmp_path / "one", region="eu-central-7")) == ROWS
    assert rejection("s3://data/chat.jsonl", s3.url, tmp_path / "two", sha256="0" * 64)[0] == "DatasetChanged"
    assert rejection("s3://data/parts/", s3.url, tmp_path / "three", sha256="0" * 64) == (
        "BadDocument", "dataset.sha256: it applies to one file, and s3://data/parts/ has 2; remove it, or set one file.",
    )  # fmt: skip


class Reporting(Server):
    """Reports one S3 error for every request."""

    status = 403
    code = ""
    extra = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        text = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>m</Message>{self.extra}</Error>"
        return Answer(self.status, {"Content-Type": "application/xml"}, b"" if request.method == "HEAD" else text.encode())


REPORTED = [
    (400, "ExpiredToken", "DatasetForbidden", f"the credentials have expired; renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN {IN_SECRET}"),
    (403, "AccessDenied", "DatasetForbidden", "{url} denies access, or the object does not exist; allow the owner of the keys s3:GetObject and s3:ListBucket on bucket data."),
    (403, "RequestTimeTooSkewed", "DatasetForbidden", "the clocks of this node and of {url} differ by more than 15 minutes; correct the clock that is wrong."),
    (403, "InvalidObjectState", "DatasetForbidden", "the object is archived; restore it first."),
    (403, "SomethingElse", "DatasetForbidden", "{url} denies access (SomethingElse); allow the owner of the keys to read it."),
    (400, "IllegalLocationConstraintException", "DatasetNotFound", "bucket data is in another region; set dataset.region."),
    (418, "Teapot", "DatasetNotFound", "{url} rejected the request with Teapot (status 418); correct dataset.uri."),
    (503, "SlowDown", "DatasetUnreachable", "{url} responded with SlowDown (status 503)."),
    (500, "InternalError", "DatasetUnreachable", "{url} responded with InternalError (status 500)."),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "reason", "sentence"), REPORTED)
def test_errors_that_servers_report(
    keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, code: str, reason: str, sentence: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with Reporting() as server:
        server.status, server.code = status, code
        for uri in ("s3://data/chat.jsonl", "s3://data/parts/"):
            found = rejection(uri, server.url, tmp_path / uri.rpartition("/")[2])
            assert found == (reason, f"dataset.uri: {uri}: {sentence.replace('{url}', server.url)}")


def test_a_server_that_is_not_there(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    url = f"http://127.0.0.1:{unused_port()}"
    assert rejection("s3://data/x", url, tmp_path / "scratch") == (
        "DatasetUnreachable",
        f'dataset.uri: s3://data/x: {url} is unreachable or sent an invalid response (Could not connect to the endpoint URL: "{url}/data/x").',
    )


@pytest.mark.parametrize("endpoint", ["s3.amazonaws.com", "127.0.0.1:9", "http://", "ftp://host"])
def test_an_endpoint_that_is_no_url(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str) -> None:
    start = f"dataset.uri: s3://data/x: the endpoint {endpoint!r} is not the address of a server; write https://<host> into"
    assert rejection("s3://data/x", endpoint, tmp_path / "scratch") == ("DatasetNotFound", f"{start} dataset.endpoint.")
    monkeypatch.setenv("AWS_S3_ENDPOINT", endpoint)
    with pytest.raises(StageError) as caught:
        find_source(SourceRequest("s3://data/x", DATASET, TRAIN_SPLITS), context(tmp_path), tmp_path)
    assert caught.value.message == f"{start} AWS_S3_ENDPOINT {IN_SECRET}"


def test_a_server_without_tls_and_a_region_that_is_none(s3: S3Server, keys: dict[str, str], tmp_path: Path) -> None:
    url = s3.url.replace("http://", "https://")
    assert rejection("s3://data/chat.jsonl", url, tmp_path / "one") == (
        "DatasetNotFound",
        f"dataset.uri: s3://data/chat.jsonl: {url} does not use TLS; write http:// in the endpoint.",
    )
    reason, message = rejection("s3://data/chat.jsonl", s3.url, tmp_path / "two", region="not a region!")
    assert reason == "DatasetNotFound"
    assert message.endswith(f"; correct dataset.region, or AWS_DEFAULT_REGION {IN_SECRET}")


def test_a_certificate_of_the_bundle_is_trusted_and_no_other(
    keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    with S3Server(tmp_path / "server", certificate=(certificate, certificate)) as server:
        server.put("data", chat_jsonl=ROWS)
        assert rejection("s3://data/chat.jsonl", server.url, tmp_path / "one") == (
            "DatasetUntrusted",
            f"dataset.uri: s3://data/chat.jsonl: the certificate of {server.url} is not trusted (certificate verify failed: self-signed certificate); set its CA in dataset.caRef.",
        )
        monkeypatch.setenv("FINETUNE_SOURCE_CA", str(certificate))
        assert texts(find("s3://data/chat.jsonl", server.url, tmp_path / "two")) == ROWS


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of 64 KiB, so that small files have several."""
    monkeypatch.setattr(downloads, "PART", 1 << 16)
    monkeypatch.setattr(web, "PART", 1 << 16)
    monkeypatch.setattr(downloads, "CHUNK", 1 << 12)
    monkeypatch.setattr(downloads, "_PAUSE", 0.001)


LARGE = b"".join(b'{"messages": [], "number": %d, "noise": "%032x"}\n' % (number, random.Random(number).getrandbits(128)) for number in range(15_000))  # fmt: skip


def test_dropped_connections_are_resumed(s3: S3Server, keys: dict[str, str], small_parts: None, tmp_path: Path) -> None:
    s3.client.put_object(Bucket="data", Key="large.jsonl", Body=LARGE)
    with TcpProxy(s3.port) as proxy:
        proxy.drops = [30_000, 3_000, 20_000, 50_000]
        source = find("s3://data/large.jsonl", f"http://127.0.0.1:{proxy.port}", tmp_path / "scratch")
        assert proxy.drops == []
        assert proxy.connections > downloads.CONNECTIONS
    assert texts(source) == LARGE


def test_a_later_attempt_downloads_only_what_is_missing(
    s3: S3Server, keys: dict[str, str], small_parts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3.client.put_object(Bucket="data", Key="large.jsonl", Body=LARGE)
    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    target = tmp_path / "scratch" / "downloads" / "dataset.uri.0"
    with TcpProxy(s3.port) as proxy:
        proxy.limit = 6
        url = f"http://127.0.0.1:{proxy.port}"
        assert rejection("s3://data/large.jsonl", url, tmp_path / "scratch")[0] == "DatasetUnreachable"
        done = target.with_name("dataset.uri.0.ranges").read_text().splitlines()[1:]
        assert 3 <= len(done) < len(LARGE) // (1 << 16)
        with target.open("r+b") as stream:  # a complete range that is not downloaded again
            stream.write(b"{}")
        proxy.limit = None
        find("s3://data/large.jsonl", url, tmp_path / "scratch")
        assert target.read_bytes() == b"{}" + LARGE[2:]
        s3.client.put_object(Bucket="data", Key="large.jsonl", Body=LARGE[:-1] + b" ")
        find("s3://data/large.jsonl", url, tmp_path / "scratch")
        assert target.read_bytes() == LARGE[:-1] + b" ", "another content is downloaded from the beginning"


def test_an_object_that_changes_during_the_download(
    s3: S3Server, keys: dict[str, str], small_parts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3.client.put_object(Bucket="data", Key="changing.jsonl", Body=LARGE)
    original, changed = downloads._fetch, []

    def fetch(*arguments: Any) -> None:
        original(*arguments)
        if not changed:
            changed.append(True)
            s3.client.put_object(Bucket="data", Key="changing.jsonl", Body=LARGE[::-1])

    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    monkeypatch.setattr(downloads, "_fetch", fetch)
    assert rejection("s3://data/changing.jsonl", s3.url, tmp_path / "scratch") == (
        "DatasetChanged", "dataset.uri: s3://data/changing.jsonl: changed while it was downloaded; rerun when no process writes to it.",
    )  # fmt: skip


def test_the_version_is_pinned(keys: dict[str, str], small_parts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with S3Server(tmp_path / "server", versions=True) as server:
        server.bucket("data")
        server.client.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        server.client.put_object(Bucket="data", Key="x.jsonl", Body=LARGE)
        original, changed = downloads._fetch, []

        def fetch(*arguments: Any) -> None:
            original(*arguments)
            if not changed:
                changed.append(True)
                server.client.put_object(Bucket="data", Key="x.jsonl", Body=b"{}\n")

        monkeypatch.setattr(downloads, "CONNECTIONS", 1)
        monkeypatch.setattr(downloads, "_fetch", fetch)
        assert texts(find("s3://data/x.jsonl", server.url, tmp_path / "scratch")) == LARGE


def test_the_program_reuses_data_that_has_not_changed(run_stage_program: Any, s3: S3Server) -> None:
    s3.client.put_object(Bucket="data", Key="reused.jsonl", Body=ROWS)
    inputs = DatasetInputs("s3://data/reused.jsonl", endpoint=s3.url)
    ended = run_stage_program("dataset", inputs, environment=s3.KEYS)
    assert (ended.code, ended.result.outputs["trainRows"]) == (0, 90), ended.errors
    run_stage_program.run = RunInfo("run-b", "team-a", "b" * 16)
    again = run_stage_program("dataset", inputs, environment=s3.KEYS)
    assert again.result.message.startswith("the same as run demo: "), again.output
    assert "downloading" not in again.output
    s3.client.put_object(Bucket="data", Key="reused.jsonl", Body=ROWS[: len(ROWS) // 2] + b"\n")
    run_stage_program.run = RunInfo("run-c", "team-a", "c" * 16)
    changed = run_stage_program("dataset", inputs, environment=s3.KEYS)
    assert (changed.code, changed.reason) == (65, "DatasetUnreadable")
    assert not [
        value
        for value in s3.KEYS.values()
        if value in ended.output + ended.errors + changed.output + changed.errors + changed.message
    ]
