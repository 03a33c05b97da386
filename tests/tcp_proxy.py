"""A TCP proxy on the loopback interface that breaks connections on demand."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self


class TcpProxy:
    """Forwards connections to a port. A context manager.

    ``drops`` has the bytes after which the next connections are reset. Connections beyond the ``limit`` are reset at their first byte.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.drops: list[int] = []
        self.connections = 0
        self.limit: int | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self.connections += 1
                number = self.connections
            threading.Thread(target=self._copy, args=(client, server, False, number), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True, number), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool, number: int) -> None:
        sent = 0
        try:
            while data := source.recv(1 << 16):
                sent += len(data)
                if answers and (self._is_due(sent) or self._is_beyond(number)):
                    for end in (sink, source):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()

    def _is_beyond(self, number: int) -> bool:
        return self.limit is not None and number > self.limit

    def _is_due(self, sent: int) -> bool:
        with self._lock:
            if self.drops and sent >= self.drops[0]:
                self.drops.pop(0)
                return True
        return False
