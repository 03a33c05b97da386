"""Downloads that do not end, that hardly move, or that are larger than the platform allows."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.uris import WebAddress
from finetune_contract.workspace import Attempt
from finetune_stages.dataset import compressed, web
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources import download_limits, downloads
from finetune_stages.sources.download_limits import download_limit, require_size
from finetune_stages.sources.downloads import RemoteFile, download_all
from finetune_stages.sources.origin import DATASET, MODEL
from finetune_stages.sources.progress import ProgressCounter
from stages.conftest import StagePrograms
from web_server import Answer, FileServer, Request, Server

RAISE = "have downloadLimits.dataset raised in the operator's configuration."


def counter(folder: Path) -> ProgressCounter:
    document = StageDocument(2, "dataset", RunInfo("demo", "team-a", "0123456789abcdef"), {})
    return ProgressCounter(Context(document, folder, Attempt(1, 1), "0" * 64), "downloading")


def rejected(url: str, folder: Path) -> tuple[str, str]:
    with pytest.raises(StageError) as caught:
        web.download(WebAddress(url), folder / "data", DATASET, counter(folder))
    return caught.value.reason.name, caught.value.message.replace(url, "URL")


class Endless:
    """A server that sends a head and then, again and again, the same piece. A context manager."""

    def __init__(self, head: str, piece: bytes, pause: float = 0) -> None:
        self._head, self._piece, self._pause = head, piece, pause
        self.sent = 0
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/data.jsonl"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                peer = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._send, args=(peer,), daemon=True).start()

    def _send(self, peer: socket.socket) -> None:
        with peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.recv(1 << 16)
            try:
                peer.sendall(self._head.replace("\n", "\r\n").encode())
                while not self._ended.wait(self._pause):
                    peer.sendall(self._piece)
                    self.sent += len(self._piece)
            except OSError:
                return


CHUNKED = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def test_a_body_without_an_end_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_DOWNLOAD_LIMIT", str(4 << 20))
    with Endless(CHUNKED, chunk(b"x" * 65536)) as server:
        found = rejected(server.url, tmp_path)
    assert found == ("DownloadTooLarge", f"dataset.uri: URL is larger than 4,194,304 bytes; use a smaller dataset, or {RAISE}")
    assert (tmp_path / "data").stat().st_size < 5 << 20


def test_a_body_that_hardly_moves_has_stalled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A byte now and then never reaches the timeout of a read."""
    monkeypatch.setattr(download_limits, "_SECONDS", 1.0)
    for head, piece in ((CHUNKED, chunk(b"x")), ("HTTP/1.1 200 OK\nContent-Length: 100000\n\n", b"x")):
        with Endless(head, piece, pause=0.2) as server:
            started = time.monotonic()
            reason, message = rejected(server.url, tmp_path)
            assert time.monotonic() - started < 10
        assert reason == "DatasetUnreachable"
        assert message.startswith("dataset.uri: URL: the download stalled: ")
        assert message.endswith(" bytes came in 1 seconds.")


def test_a_steady_download_has_not_stalled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download_limits, "_SECONDS", 0.6)
    monkeypatch.setattr(download_limits, "_LEAST_BYTES", 1000)

    def slowly(first: int, end: int) -> Iterator[bytes]:
        for _ in range(first, end, 1000):
            time.sleep(0.1)
            yield b"x" * 1000

    download_all([RemoteFile(20_000, "a", tmp_path / "data", slowly)], counter(tmp_path), DATASET, "data")
    assert (tmp_path / "data").read_bytes() == b"x" * 20_000


def test_the_stated_size_is_checked_before_a_byte_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_DOWNLOAD_LIMIT", "1000")

    def never(_first: int, _end: int) -> Iterator[bytes]:
        raise AssertionError

    files = [RemoteFile(600, "a", tmp_path / name, never) for name in ("a", "b")]
    with pytest.raises(StageError) as caught:
        download_all(files, counter(tmp_path), MODEL, "s3://m/")
    assert caught.value.message == (
        "model.uri: s3://m/ is larger than 1,000 bytes; use a smaller model, or have downloadLimits.model raised in the operator's"
        " configuration."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_more_than_a_range_is_not_read_further(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloads, "PART", 1000)
    read = []

    def endless(first: int, _end: int) -> Iterator[bytes]:
        while True:
            read.append(first)
            yield b"%d" % (first // 1000) * 700

    download_all([RemoteFile(2500, "a", tmp_path / "data", endless)], counter(tmp_path), DATASET, "data")
    assert (tmp_path / "data").read_bytes() == b"0" * 1000 + b"1" * 1000 + b"2" * 500
    assert len(read) == 5


def test_a_body_that_unpacks_without_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compressed, "_LEAST", 1 << 20)
    packed = gzip.compress(bytes(64 << 20))

    class Packed(Server):
        until_close = False

        def answer(self, request: Request, body: bytes) -> Answer:
            return Answer(200, {"Content-Encoding": "gzip"}, packed, self.until_close)

    with Packed() as server:
        for server.until_close in (False, True):
            web.download(WebAddress(f"{server.url}/x"), tmp_path / "data", DATASET, counter(tmp_path))
            assert (tmp_path / "data").read_bytes() == packed
    with pytest.raises(StageError) as caught:
        compressed.unpacked(tmp_path / "data", "data", tmp_path / "unpacked", lambda _more: None)
    assert caught.value.message == "data: its content is larger than 0 GiB; unpack it and set the file inside."


def test_without_the_variable_there_is_no_limit() -> None:
    assert download_limit({}) is None
    assert download_limit({"FINETUNE_DOWNLOAD_LIMIT": "5"}) == 5
    require_size(1 << 60, DATASET, "data", {})
    require_size(5, DATASET, "data", {"FINETUNE_DOWNLOAD_LIMIT": "5"})


def test_a_program_obeys_the_limit(run_stage_program: StagePrograms, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "data.jsonl").write_text(json.dumps({"messages": []}) * 100)
    with FileServer(tmp_path / "web") as server:
        ended = run_stage_program("dataset", {"uri": f"{server.url}/data.jsonl"}, environment={"FINETUNE_DOWNLOAD_LIMIT": "100"})
    assert ended.reason == "DownloadTooLarge"
