"""The progress server on the real wire: what it answers, and clients that are slow, many or senseless."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from finetune_stages.sdk.progress_server import CONNECTIONS, DEADLINE, REQUEST_BYTES, ProgressServer, listen

BODY = json.dumps({"progressPercentage": 7}).encode()


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server, which ends with the test."""
    listener = listen(0)
    number: int = listener.getsockname()[1]
    server = ProgressServer(listener, lambda: BODY)
    yield number
    server.close()


def get(port: int, path: str = "/metrics", method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Status and body of a response, within the two seconds of OpenShift AI's controller."""
    with closing(http.client.HTTPConnection(host, port, timeout=2)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def test_only_the_metrics_are_there(port: int) -> None:
    assert get(port) == get(port, "/metrics?now") == (200, BODY)
    assert [get(port, path)[0] for path in ("/", "/metrics/", "/metricsx", "//metrics", "/../metrics")] == [404] * 5
    assert [get(port, method=method)[0] for method in ("POST", "PUT", "get")] == [404] * 3


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_it_listens_at_every_address(port: int, host: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    assert get(port, host=host) == (200, BODY)


@pytest.mark.parametrize(
    "text",
    [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /metrics", b"\0" * 100_000, b"GET /" + b"a" * 2 * REQUEST_BYTES, b"\xff\xfe \xff\r\n\r\n"],
)  # fmt: skip
def test_garbage_is_dropped_and_the_next_poll_is_answered(port: int, text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        try:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
        except OSError:  # it was reset
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 404")
    assert get(port) == (200, BODY)


def test_a_client_that_sends_nothing_or_a_byte_at_a_time_is_dropped_in_time(port: int) -> None:
    started = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=9) as silent,
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        threading.Thread(target=_drip, args=(slow,), daemon=True).start()
        assert get(port) == (200, BODY), "others are answered in the meantime"
        assert _ended(silent)
        assert _ended(slow)
    assert DEADLINE - 0.2 < time.monotonic() - started < DEADLINE + 3


def _drip(connection: socket.socket) -> None:
    try:
        while True:
            connection.sendall(b"a")
            time.sleep(0.1)
    except OSError:
        pass


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_the_oldest_of_many_connections_is_dropped(port: int) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=9)) for _ in range(4 * CONNECTIONS)]
        started = time.monotonic()
        assert get(port) == (200, BODY)
        assert all(_ended(connection) for connection in many[: 3 * CONNECTIONS])
        assert time.monotonic() - started < DEADLINE - 0.5, "they do not wait for the deadline"


def test_a_client_that_reads_nothing_delays_neither_others_nor_the_end() -> None:
    listener = listen(0)
    port = listener.getsockname()[1]
    server = ProgressServer(listener, lambda: b"x" * (64 << 20))
    with socket.create_connection(("127.0.0.1", port)) as greedy:
        greedy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert get(port, "/")[0] == 404
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 1
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_closing_twice_is_harmless() -> None:
    server = ProgressServer(listen(0), lambda: BODY)
    server.close()
    server.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken_is_an_error(family: socket.AddressFamily) -> None:
    with socket.create_server(("", 0), family=family) as other, pytest.raises(OSError, match="Address already in use"):
        listen(other.getsockname()[1])


def test_without_ipv6_it_listens_at_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ipv6(address: tuple[str, int], *, family: int = socket.AF_INET, **options: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return create(address, family=family, **options)  # type: ignore[arg-type]

    create = socket.create_server
    monkeypatch.setattr(socket, "create_server", no_ipv6)
    with listen(0) as listener:
        assert listener.family == socket.AF_INET
