"""HTTP servers, on the loopback interface by default, that record every request and break on demand, always on the real wire.

:class:`FileServer` serves a folder; :class:`Server` is what it and the hub of :mod:`hub` are made of::

    with FileServer(tmp_path) as server:
        server.fault("data.jsonl", reset_after=1000)  # the next answer to a path with that text breaks off
        hold = server.fault("other.jsonl", hold_after=1000)  # that one stops there until hold.release is set
        ...
        assert server.requests[0].path == "/data.jsonl"
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pytest


@dataclass(frozen=True)
class Request:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Hold:
    """Pauses an answer in the middle: ``reached`` is set there, and it continues when ``release`` is set."""

    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class Fault:
    """What happens to the next ``times`` answers to GET requests whose path contains ``text``.

    ``status``: that status instead. ``reset_after``: the connection is reset after so many bytes of the body.
    ``truncate_after``: it is closed there without a word. ``hold_after``: it stops there for ``hold``.
    """

    text: str
    times: int = 1
    status: int | None = None
    reset_after: int | None = None
    truncate_after: int | None = None
    hold_after: int | None = None
    hold: Hold = field(default_factory=Hold)

    @property
    def after(self) -> int | None:
        """Bytes of the body that are still sent."""
        return next((n for n in (self.reset_after, self.truncate_after, self.hold_after) if n is not None), None)


@dataclass(frozen=True)
class Answer:
    """An answer of a server: a status, headers, and a body in memory or in a file.

    ``until_close``: the end of the connection ends the body, whose length is not sent.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Path = b""
    until_close: bool = False


class Server:
    """A threaded HTTP/1.1 server that records requests and breaks on demand. A context manager."""

    def __init__(self, host: str = "127.0.0.1", certificate: Path | None = None) -> None:
        self._scheme = "https" if certificate else "http"
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer((host, 0), self._handler())
        self._http.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """``http://<host>:<port>``; https over TLS."""
        host, port = self._http.server_address[:2]
        return f"{self._scheme}://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        for fault in self._faults:
            fault.hold.release.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fault(self, text: str, **how: Any) -> Hold:
        """Let the next answer to a path with ``text`` fail (see :class:`Fault`)."""
        fault = Fault(text, **how)
        with self._lock:
            self._faults.append(fault)
        return fault.hold

    def paths(self, method: str = "GET") -> list[str]:
        """Paths of the requests so far."""
        return [request.path for request in self.requests if request.method == method]

    def answer(self, request: Request, body: bytes) -> Answer:
        """The answer when nothing is to go wrong."""
        raise NotImplementedError

    def _next_fault(self, request: Request) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and request.method == "GET" and fault.text in request.path:
                    fault.times -= 1
                    return fault
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers)
                server.requests.append(request)
                fault = server._next_fault(request)
                answer = Answer(fault.status) if fault and fault.status else server.answer(request, body)
                try:
                    _send(self, request, answer, fault)
                except (BrokenPipeError, ConnectionResetError):  # the client went away, perhaps because a test killed it
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = handle_any  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        return Handler


class FileServer(Server):
    """Serves the files below a folder, as any web server does. ``/redirect/<path>`` sends the client on to ``/<path>``."""

    def __init__(self, folder: Path, certificate: Path | None = None, host: str = "127.0.0.1") -> None:
        super().__init__(host, certificate)
        self.folder = folder

    def answer(self, request: Request, body: bytes) -> Answer:
        path = unquote(urlsplit(request.path).path).lstrip("/")
        if path.startswith("redirect/"):
            return Answer(302, {"Location": "/" + path.removeprefix("redirect/")})
        file = self.folder / path
        return Answer(200, {"Content-Type": "application/octet-stream"}, file) if file.is_file() else Answer(404)


def unused_port(host: str = "127.0.0.1") -> int:
    """Return a port of an address of this machine on which no process listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def machine_address() -> str:
    """An IPv4 address of this machine other than loopback; the test is skipped on a machine that has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address other than loopback")
        return str(probe.getsockname()[0])


def wait_until(condition: Any, seconds: float = 30) -> None:
    """Poll until ``condition()`` holds.

    Raises:
        TimeoutError: it did not in so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


def _send(handler: BaseHTTPRequestHandler, request: Request, answer: Answer, fault: Fault | None) -> None:
    """Write an answer, whole, the range that was asked for, or as far as the fault lets it."""
    body = answer.body.read_bytes() if isinstance(answer.body, Path) else answer.body
    status, extra = answer.status, dict(answer.headers)
    wanted = request.headers.get("range")
    if wanted and status == 200 and request.headers.get("if-range") in (None, extra.get("ETag"), extra.get("Last-Modified")):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), int(last) if last else len(body) - 1
        extra["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        body, status = body[start : end + 1], 206
    handler.send_response(status)
    for name, value in extra.items():
        handler.send_header(name, value)
    if "Accept-Ranges" not in extra:
        handler.send_header("Accept-Ranges", "bytes")
    if answer.until_close:
        handler.send_header("Connection", "close")
    else:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if request.method == "HEAD":
        return
    cut = fault.after if fault else None
    if fault is None or cut is None:
        handler.wfile.write(body)
        return
    handler.wfile.write(body[:cut])
    handler.wfile.flush()
    if fault.hold_after is not None:
        fault.hold.reached.set()
        fault.hold.release.wait()
        handler.wfile.write(body[cut:])
        return
    handler.close_connection = True
    if fault.reset_after is not None:  # closing with this option sends RST instead of FIN
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
