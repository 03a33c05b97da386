"""A real MLflow server in a process of its own, and a server before it that breaks on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from model_registry_server import Answer, Call, TroubledServer

_PROGRAM = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""MLflow's own application without the processes that ``mlflow server`` puts around it."""


class MLflowProcess:
    """MLflow's server on an sqlite file below ``folder``. A context manager; ``port`` is where it listens."""

    def __init__(self, folder: Path) -> None:
        variables = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1",
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/server.db", "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "false", "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
        }  # fmt: skip
        self._errors = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], env=variables, cwd=folder, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        if self._process.stdout:
            self._process.stdout.close()


class BeforeMLflow(TroubledServer):
    """Hands calls on to MLflow at ``port``; with a ``token`` it requires that one, as an authenticating proxy does."""

    def __init__(self, port: int, token: str | None = None, certificate: Path | None = None) -> None:
        super().__init__(certificate)
        self._port, self._token = port, token

    def answer(self, call: Call) -> Answer:
        if self._token and call.headers.get("authorization") != f"Bearer {self._token}":
            return Answer(401, b"Unauthorized\n", {"Content-Type": "text/plain"})
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"Content-Type": call.headers.get("content-type", "application/json")}
        try:
            connection.request(call.method, call.path, call.body, headers)
            response = connection.getresponse()
            kind = response.headers.get("Content-Type", "application/json")
            return Answer(response.status, response.read(), {"Content-Type": kind})
        finally:
            connection.close()
