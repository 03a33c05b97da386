"""A status server as Kubeflow Trainer's, over real TLS, which records what is posted."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.certificates import Authority

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/demo-train-1-1/status"


@dataclass
class TrainerServer:
    """A TLS server that records what is posted."""

    authority: Authority
    folder: Path
    status: int = 200
    delay: float = 0.0
    posts: list[tuple[str, str, Any]] = field(default_factory=list)
    """Path, ``Authorization`` and body of each request."""
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment that Trainer gives to a pod."""
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": self.address + PATH,
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(self.authority.pair.certificate),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(self.folder / "token"),
        }


@contextmanager
def trainer_server(folder: Path) -> Iterator[TrainerServer]:
    """A server with its files in ``folder``, in this context."""
    authority = Authority(folder / "authority")
    authority.create()
    (folder / "token").write_text("first\n")
    trainer = TrainerServer(authority, folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(trainer.delay)
            trainer.posts.append((self.path, self.headers["Authorization"], body))
            self.send_response(trainer.status)
            self.end_headers()
            self.wfile.write(b'{"message": "Forbidden"}')

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pair = authority.server("status-server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trainer.address = f"https://localhost:{server.server_address[1]}"
    yield trainer
    server.shutdown()
    server.server_close()
