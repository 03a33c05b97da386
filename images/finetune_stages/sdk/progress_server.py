"""HTTP server of a stage's progress: the controller of OpenShift AI polls ``GET /metrics`` for its dashboard.

It runs in a thread of its own and never waits for a client: a request has a size and a deadline, and when too many connections are open
the oldest is dropped.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

PATH = "/metrics"
CONNECTIONS = 16
"""Open connections at most."""
REQUEST_BYTES = 8192
"""Bytes of the head of a request at most."""
DEADLINE = 2.0
"""Seconds from the start of a connection to its end; the controller's own limit for a poll is the same."""
_CLOSE_SECONDS = 0.5
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def listen(port: int) -> socket.socket:
    """Return a socket that listens at all addresses of this pod, IPv6 and IPv4.

    Raises:
        OSError: the port is taken or not permitted.
    """
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("", port))


class ProgressServer:
    """Serves ``body()`` at :data:`PATH` until it is closed.

    Args:
        listener: where it listens; closed with the server.
        body: returns the JSON of a response. It is called in the server's thread and must not wait.
    """

    def __init__(self, listener: socket.socket, body: Callable[[], bytes]) -> None:
        self._listener = listener
        self._body = body
        self._open: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="progress-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server, and the connections with it."""
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._listener, limit=REQUEST_BYTES)
        await self._closing.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        if len(self._open) > CONNECTIONS:
            self._open.pop(0).transport.abort()
        try:
            async with asyncio.timeout(DEADLINE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # the client is gone or slow, or sends no HTTP
        finally:
            writer.transport.abort()
            if writer in self._open:
                self._open.remove(writer)

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        status, body = (b"404 Not Found", b"") if method != b"GET" or path != PATH.encode() else (b"200 OK", self._body())
        return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
            status,
            len(body),
            body,
        )
