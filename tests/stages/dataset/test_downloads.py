"""Downloads from web servers: ranges, dropped connections, redirects, logins and certificates."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset import web
from finetune_stages.dataset.fetch import find_source
from finetune_stages.dataset.source_request import TRAIN_SPLITS, SourceRequest
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.redaction import Redactor
from finetune_stages.sources import downloads
from finetune_stages.sources.origin import DATASET
from web_server import Answer, FileServer, Request

LOGIN = "Bearer a-secret-login-of-tests"
CONTENT = b"".join(b'{"n": %d, "noise": "%s"}\n' % (n, hashlib.sha256(b"%d" % n).hexdigest().encode()) for n in range(8_000))


class Tagging(FileServer):
    """A server that identifies the content of its files, and that may require a login."""

    login = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        if self.login and request.headers.get("authorization") != self.login:
            return Answer(401)
        found = super().answer(request, body)
        if not isinstance(found.body, Path):
            return found
        return Answer(200, {"ETag": f'"{hashlib.sha256(found.body.read_bytes()).hexdigest()}"'}, found.body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Tagging]:
    """A server with a file of several ranges."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "large.jsonl").write_bytes(CONTENT)
    with Tagging(tmp_path / "web") as serving:
        yield serving


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of 64 KiB and short pauses; no variables of this machine."""
    for module in (downloads, web):
        monkeypatch.setattr(module, "PART", 1 << 16)
        monkeypatch.setattr(module, "CHUNK", 1 << 10)
    monkeypatch.setattr(downloads, "_PAUSE", 0.001)
    for name in ("HTTP_AUTHORIZATION", "FINETUNE_SOURCE_CA"):
        monkeypatch.delenv(name, raising=False)


def download(url: str, tmp_path: Path, sha256: str | None = None) -> bytes:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    document = StageDocument(2, "dataset", RunInfo("demo", "team-a", "0123456789abcdef"), {})
    find_source(
        SourceRequest(url, DATASET, TRAIN_SPLITS, sha256=sha256), Context(document, scratch, Attempt(1, 1), "0" * 64), scratch
    )
    return (scratch / "downloads" / "dataset.uri.0").read_bytes()


def rejected(url: str, tmp_path: Path) -> tuple[str, str]:
    with pytest.raises(StageError) as caught:
        download(url, tmp_path)
    return caught.value.reason.name, caught.value.message.replace(url.partition("?")[0], "URL")


def ranges(server: FileServer) -> list[str]:
    return [request.headers["range"] for request in server.requests if "range" in request.headers]


def test_a_large_file_is_downloaded_in_ranges(server: Tagging, tmp_path: Path) -> None:
    assert download(f"{server.url}/redirect/large.jsonl?name=abc", tmp_path) == CONTENT
    parts = -(-len(CONTENT) // (1 << 16))
    assert set(ranges(server)) == {
        f"bytes={first}-{min(first + (1 << 16), len(CONTENT)) - 1}" for first in range(0, len(CONTENT), 1 << 16)
    }
    assert len({request.headers["if-range"] for request in server.requests if "if-range" in request.headers}) == 1
    assert len(server.requests) == 2 + 2 * parts, "each request follows the redirect"


def test_a_small_file_takes_one_request(server: Tagging, tmp_path: Path) -> None:
    (server.folder / "small.jsonl").write_bytes(b"{}\n")
    assert download(f"{server.url}/small.jsonl", tmp_path) == b"{}\n"
    assert len(server.requests) == 1


@pytest.mark.parametrize("how", [{"reset_after": 30_000}, {"truncate_after": 30_000}, {"status": 503}, {"status": 429}])
def test_a_dropped_connection_is_resumed(server: Tagging, tmp_path: Path, how: dict[str, int]) -> None:
    small = CONTENT[:60_000]
    (server.folder / "small.jsonl").write_bytes(small)
    server.fault("small.jsonl", **({"reset_after": 20_000} if "status" in how else how))
    server.fault("small.jsonl", **how)
    assert download(f"{server.url}/small.jsonl", tmp_path) == small
    assert len(server.requests) == 3
    assert int(ranges(server)[0].removeprefix("bytes=").partition("-")[0]) > 10_000


def test_a_server_that_drops_each_connection_fails(server: Tagging, tmp_path: Path) -> None:
    server.fault("large.jsonl", times=1, truncate_after=10)
    server.fault("large.jsonl", times=100, truncate_after=0)
    reason, message = rejected(f"{server.url}/large.jsonl?name=abc", tmp_path)
    assert reason == "DatasetUnreachable"
    assert message.startswith("dataset.uri: URL is unreachable or sent an invalid response (peer closed connection without")
    assert "abc" not in message


def test_without_an_identity_each_connection_begins_again(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "large.jsonl").write_bytes(CONTENT)
    with FileServer(tmp_path / "web") as server:
        server.fault("large.jsonl", times=3, truncate_after=200_000)
        assert download(f"{server.url}/large.jsonl", tmp_path) == CONTENT
        assert len(server.requests) == 4
        server.fault("large.jsonl", times=9, truncate_after=200_000)
        (tmp_path / "again").mkdir()
        assert rejected(f"{server.url}/large.jsonl", tmp_path / "again")[0] == "DatasetUnreachable"


def test_a_file_that_changes_during_the_download(server: Tagging, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original, changed = downloads._fetch, []

    def fetch(*arguments: Any) -> None:
        original(*arguments)
        if not changed:
            changed.append(True)
            (server.folder / "large.jsonl").write_bytes(CONTENT[::-1])

    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    monkeypatch.setattr(downloads, "_fetch", fetch)
    assert rejected(f"{server.url}/large.jsonl", tmp_path) == (
        "DatasetChanged", "dataset.uri: URL changed while it was downloaded; rerun when no process writes to it.",
    )  # fmt: skip


def test_a_later_attempt_downloads_only_what_is_missing(server: Tagging, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    original, count = downloads._fetch, []

    def fetch(*arguments: Any) -> None:
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(original(*arguments))

    monkeypatch.setattr(downloads, "_fetch", fetch)
    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/large.jsonl", tmp_path)
    monkeypatch.setattr(downloads, "_fetch", original)
    server.requests.clear()
    assert download(f"{server.url}/large.jsonl", tmp_path) == CONTENT
    assert len(ranges(server)) == -(-len(CONTENT) // (1 << 16)) - 3


def test_a_login_is_sent_and_never_to_another_server(server: Tagging, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.login = LOGIN
    assert rejected(f"{server.url}/large.jsonl", tmp_path) == (
        "DatasetForbidden",
        "dataset.uri: URL requires a login (status 401); set dataset.secretRef to a Secret with HTTP_AUTHORIZATION, or use a public address.",
    )
    monkeypatch.setenv("HTTP_AUTHORIZATION", "Basic another-login")
    assert rejected(f"{server.url}/large.jsonl", tmp_path) == (
        "DatasetForbidden",
        "dataset.uri: URL rejects the login in HTTP_AUTHORIZATION (status 401); correct it in the Secret of dataset.secretRef.",
    )
    monkeypatch.setenv("HTTP_AUTHORIZATION", f"{LOGIN}\n")
    assert download(f"{server.url}/large.jsonl", tmp_path) == CONTENT

    class Elsewhere(Tagging):
        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(302, {"Location": f"{server.url}/large.jsonl"})

    with Elsewhere(tmp_path) as first:
        server.requests.clear()
        assert rejected(f"{first.url}/x", tmp_path)[0] == "DatasetForbidden"
        assert [request.headers.get("authorization") for request in first.requests] == [LOGIN]
        assert [request.headers.get("authorization") for request in server.requests] == [None]


@pytest.mark.parametrize(
    ("url", "value", "sentence"),
    [
        ("http://example.com/x", LOGIN, "dataset.uri: URL would receive HTTP_AUTHORIZATION unencrypted; use https://, or a Secret without it."),
        ("http://10.0.0.1/x", LOGIN, "dataset.uri: URL would receive HTTP_AUTHORIZATION unencrypted; use https://, or a Secret without it."),
        ("https://example.com/x", "a\nb", "dataset.secretRef: HTTP_AUTHORIZATION has characters that are invalid in a header; store one line of ASCII."),
        ("https://example.com/x", "ü", "dataset.secretRef: HTTP_AUTHORIZATION has characters that are invalid in a header; store one line of ASCII."),
    ],
)  # fmt: skip
def test_a_login_that_is_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, value: str, sentence: str) -> None:
    monkeypatch.setenv("HTTP_AUTHORIZATION", value)
    assert rejected(url, tmp_path) == ("DatasetForbidden", sentence)


def test_a_redirect_to_a_host_that_is_not_allowed_is_not_followed(
    server: Tagging, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"hosts": ["localhost"]}')
    server.requests.clear()

    class Elsewhere(FileServer):
        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(302, {"Location": f"{server.url}/large.jsonl"})

    with Elsewhere(tmp_path) as first:
        found = rejected(f"{first.url.replace('127.0.0.1', 'localhost')}/x", tmp_path)
        assert len(first.requests) == 1
    assert found == (
        "HostNotAllowed",
        "dataset.uri: host 127.0.0.1 is not allowed here; use one of allowedHosts.hosts in the operator's configuration (localhost).",
    )
    assert server.requests == []


def test_a_service_of_the_cluster_gets_a_login_without_encryption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTP_AUTHORIZATION", LOGIN)
    assert rejected("http://data.team.svc:1/x", tmp_path)[0] == "DatasetUnreachable"  # no such host here


def test_a_certificate_of_the_bundle_is_trusted_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    (tmp_path / "x.jsonl").write_bytes(b"{}\n")
    with FileServer(tmp_path, certificate) as server:
        assert rejected(f"{server.url}/x.jsonl", tmp_path) == (
            "DatasetUntrusted",
            "dataset.uri: URL has a certificate that is not trusted (self-signed certificate); set its CA in dataset.caRef.",
        )
        monkeypatch.setenv("FINETUNE_SOURCE_CA", str(certificate))
        assert download(f"{server.url}/x.jsonl", tmp_path) == b"{}\n"


def test_redirects_without_an_end(tmp_path: Path) -> None:
    class Circle(FileServer):
        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(302, {"Location": request.path})

    with Circle(tmp_path) as server:
        assert rejected(f"{server.url}/x", tmp_path) == (
            "DatasetNotFound", "dataset.uri: URL redirects without an end; correct the address.",
        )  # fmt: skip


def test_a_server_that_compresses_against_the_request(tmp_path: Path) -> None:
    class Compressing(FileServer):
        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(200, {"Content-Encoding": "gzip"}, gzip.compress(CONTENT))

    with Compressing(tmp_path) as server:
        assert gzip.decompress(download(f"{server.url}/x", tmp_path)) == CONTENT


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_gz_file_with_its_content_encoding_is_downloaded_as_it_is(tmp_path: Path, encoding: str) -> None:
    packed = gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:])

    class Encoding(FileServer):
        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(200, {"Content-Encoding": encoding}, packed)

    with Encoding(tmp_path) as server:
        assert download(f"{server.url}/x.gz", tmp_path, hashlib.sha256(packed).hexdigest()) == packed


@pytest.mark.parametrize(
    ("answer", "reason", "sentence"),
    [
        (
            Answer(200, {"Content-Encoding": "br"}, b"?"),
            "DatasetUnreadable",
            "dataset.uri: URL is sent with Content-Encoding br, which this release does not read; serve the file without it.",
        ),
        (
            Answer(206, {"Content-Range": "bytes 0-2/6"}, b"{}\n"),
            "DatasetUnreachable",
            "dataset.uri: URL sent only a part of the file (bytes 0-2/6).",
        ),
        (Answer(302), "DatasetNotFound", "dataset.uri: URL redirects without a target (status 302); correct the address."),
    ],
)
def test_responses_that_are_not_the_file(tmp_path: Path, answer: Answer, reason: str, sentence: str) -> None:
    class Fixed(FileServer):
        def answer(self, request: Request, body: bytes) -> Answer:
            return answer

    with Fixed(tmp_path) as server:
        assert rejected(f"{server.url}/x", tmp_path) == (reason, sentence)


@pytest.mark.parametrize("encoding", [{}, {"Content-Encoding": "gzip"}])
def test_a_gz_file_whose_connection_ends_too_early(tmp_path: Path, encoding: dict[str, str]) -> None:
    packed = gzip.compress(CONTENT)

    class Closing(FileServer):
        sent = packed[:-1000]

        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(200, encoding, self.sent, until_close=True)

    with Closing(tmp_path) as server:
        assert rejected(f"{server.url}/x.gz", tmp_path) == (
            "DatasetUnreachable", "dataset.uri: URL: the connection ended before the end of the compressed file.",
        )  # fmt: skip
        server.sent = packed
        assert download(f"{server.url}/x.gz", tmp_path) == packed


CHANGED = ("DatasetChanged", "dataset.uri: URL changed while it was downloaded; rerun when no process writes to it.")


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"new"'},
        {"Content-Range": "bytes {range}/9"},
        {"Content-Range": "bytes 0-9/{size}"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_a_cache_that_sends_a_range_of_another_content(tmp_path: Path, headers: dict[str, str]) -> None:
    class Ignoring(FileServer):
        """Ignores ``If-Range``."""

        other = headers

        def answer(self, request: Request, body: bytes) -> Answer:
            asked = request.headers.get("range", "").removeprefix("bytes=")
            if not asked:
                return Answer(200, {"ETag": '"old"'}, CONTENT)
            first, last = map(int, asked.split("-"))
            whole = {"ETag": '"old"', "Content-Range": "bytes {range}/{size}", **self.other}
            filled = {name: value.format(range=asked, size=len(CONTENT)) for name, value in whole.items()}
            return Answer(206, filled, CONTENT[first : last + 1])

    with Ignoring(tmp_path) as server:
        assert rejected(f"{server.url}/x", tmp_path) == CHANGED
        server.other = {}
        assert download(f"{server.url}/x", tmp_path) == CONTENT


def test_another_content_after_a_dropped_connection_without_ranges(tmp_path: Path) -> None:
    class Tagged(FileServer):
        """Identifies its content, and supports no ranges."""

        tags = iter(("one", "one", "one", "two"))

        def answer(self, request: Request, body: bytes) -> Answer:
            assert "range" not in request.headers
            return Answer(200, {"ETag": f'"{next(self.tags)}"', "Accept-Ranges": "none"}, CONTENT)

    with Tagged(tmp_path) as server:
        server.fault("x", truncate_after=5)
        assert download(f"{server.url}/x", tmp_path) == CONTENT
        server.fault("x", truncate_after=5)
        assert rejected(f"{server.url}/x", tmp_path) == CHANGED


def test_a_login_is_redacted_with_and_without_its_scheme() -> None:
    redact = Redactor({"HTTP_AUTHORIZATION": LOGIN})
    assert redact(f"sent {LOGIN} and a-secret-login-of-tests") == "sent *** and ***"


def test_the_program_shows_no_login(run_stage_program: Any, server: Tagging) -> None:
    server.login = LOGIN
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (server.folder / "chat.jsonl").write_text(f"{json.dumps(row)}\n" * 10)
    inputs = DatasetInputs(f"{server.url}/chat.jsonl")
    ended = run_stage_program("dataset", inputs, environment={"HTTP_AUTHORIZATION": LOGIN})
    assert (ended.code, ended.result.outputs["trainRows"]) == (0, 9), ended.errors
    run_stage_program.run = RunInfo("run-b", "team-a", "b" * 16)
    again = run_stage_program("dataset", inputs, environment={"HTTP_AUTHORIZATION": LOGIN})
    assert again.result.message.startswith("the same as run demo: "), again.output
    assert LOGIN.split()[1] not in ended.output + ended.errors + ended.message + again.output
