"""Reports to the status server of Kubeflow Trainer (2.2 and later, feature gate ``TrainJobStatus``), which writes a TrainJob's status."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from finetune_contract.progress import EXPORT_SECONDS, Progress, to_trainer

URL_VARIABLE = "KUBEFLOW_TRAINER_SERVER_URL"
"""Environment variable with the address for reports on this TrainJob."""
CA_VARIABLE = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
"""Environment variable with the path of the server's CA certificate (PEM)."""
TOKEN_VARIABLE = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - a name, no secret
"""Environment variable with the path of the bearer token. The kubelet replaces the file when it renews the token."""
OFF_VARIABLE = "DISABLE_KUBEFLOW_INTEGRATION"
"""Environment variable with which transformers does not report itself: it does so even with ``report_to="none"``."""
TIMEOUT = 5.0
"""Seconds for a connection, and for each read and write of it."""
FIRST_SECONDS = 1.0
"""Seconds between two checks for the first report."""
FINAL_SECONDS = 2.0
"""Seconds that the end of the program waits for the last report."""
_MESSAGE_BYTES = 300


class NotReported(Exception):
    """The status server cannot be reached, or rejected a report. The message has the cause."""


@dataclass(frozen=True)
class StatusServer:
    """The status server of this TrainJob, and the files for its use."""

    url: str
    ca: Path
    token: Path

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> StatusServer | None:
        """Return the server that Trainer names, ``None`` where it names none or not all of it."""
        url, ca, token = (environment.get(name) for name in (URL_VARIABLE, CA_VARIABLE, TOKEN_VARIABLE))
        return cls(url, Path(ca), Path(token)) if url and ca and token else None

    def post(self, progress: Progress, timeout: float = TIMEOUT) -> None:
        """Report ``progress``.

        Raises:
            NotReported: it was not accepted.
        """
        try:
            status, answer = self._post(json.dumps(to_trainer(progress)).encode(), timeout)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotReported(f"{self.url}: {str(error) or type(error).__name__}") from error
        if status != http.client.OK:
            raise NotReported(f"{self.url}: HTTP {status}: {answer}")

    def _post(self, body: bytes, timeout: float) -> tuple[int, str]:
        """Return status and start of the answer. No proxy is used, since the server is in the cluster; no redirect is followed."""
        address = urlsplit(self.url)
        if address.scheme != "https" or not address.hostname:
            raise ValueError("it is no https address, and the token would not be secret")
        token = self.token.read_text(encoding="utf-8").strip()
        tls = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=tls)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", address.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(_MESSAGE_BYTES).decode(errors="replace").strip()
        finally:
            connection.close()


class StatusPoster:
    """Thread that posts each change of a report, at most every :data:`~finetune_contract.progress.EXPORT_SECONDS`.

    A failure is logged once and changes nothing else: the next report is tried as if it were the first.

    Args:
        server: where it posts.
        newest: returns the newest report, ``None`` before the first.
        seconds: between two attempts.
    """

    def __init__(self, server: StatusServer, newest: Callable[[], Progress | None], seconds: float = EXPORT_SECONDS) -> None:
        self._server, self._newest, self._seconds = server, newest, seconds
        self._posted: Progress | None = None
        self._accepted = False
        self._logged = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Post the end, if the server accepted the report before: a server that does not answer delays nothing."""
        self._closing.set()
        if self._accepted:
            self._thread.join(FINAL_SECONDS)

    def _run(self) -> None:
        pause = FIRST_SECONDS
        while not self._closing.wait(pause):
            if self._post(TIMEOUT):
                pause = self._seconds
        if self._accepted:
            self._post(FINAL_SECONDS)

    def _post(self, timeout: float) -> bool:
        """Post the newest report, and return whether there was one to post."""
        progress = self._newest()
        if progress is None or progress == self._posted:
            return False
        try:
            self._server.post(progress, timeout)
        except NotReported as error:
            self._accepted = False
            if not self._logged:
                self._logged = True
                print(f"progress is not reported to Kubeflow Trainer: {error}", flush=True)
        else:
            self._accepted, self._posted = True, progress
        return True
