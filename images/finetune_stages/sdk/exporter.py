"""Export of a pod's progress while its stage runs: to the controller of OpenShift AI, which polls, and to Kubeflow Trainer's server.

The only source is :meth:`.Context.report`. In a pod with several processes, the one that was started first exports, because it outlives the
others and computes nothing; the first worker relays its reports through a file. So a pod has one exporter, whatever trains in it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from finetune_contract.progress import METRICS_PORT_VARIABLE, Progress, last, line, to_metrics

from .fault import Interrupted
from .progress_server import ProgressServer, listen
from .trainer_status import OFF_VARIABLE, StatusPoster, StatusServer

RELAY_VARIABLE = "FINETUNE_PROGRESS_FILE"
"""Environment variable with the path at which a worker leaves its newest report for the exporter."""
PORTS = range(1024, 65536)
"""Ports that OpenShift AI accepts."""
HOLD_SECONDS = 10.0
"""Least time between two different responses of the server.

Each change makes the controller of OpenShift AI patch the TrainJob, and each patch makes it poll again at once.
"""


class Exporter:
    """The newest report of this pod, for the servers.

    Attributes:
        warnings: sentences for the user about what cannot be exported.
    """

    def __init__(self, relay: Path | None = None) -> None:
        self.warnings: list[str] = []
        self._relay = relay
        self._own: Progress | None = None
        self._reached = 0
        self._held = b""
        self._held_since = float("-inf")

    def report(self, progress: Progress) -> None:
        """Take a report of this process."""
        self._own = progress

    def newest(self) -> Progress | None:
        """Return the newest report of this process or of the first worker, with no lower percentage than the one before."""
        known = [report for report in (self._own, self._relayed()) if report is not None]
        newest = max(known, key=lambda report: (report.time or 0, report.percent), default=None)
        if newest is None:
            return None
        self._reached = max(self._reached, newest.percent)
        return replace(newest, percent=self._reached)

    def body(self) -> bytes:
        """Return the response of the server. It changes only with a report, and at most every :data:`HOLD_SECONDS`."""
        now = time.monotonic()
        if now - self._held_since >= HOLD_SECONDS:
            body = json.dumps(to_metrics(self.newest() or Progress(0)), allow_nan=False).encode()
            if body != self._held:
                self._held, self._held_since = body, now
        return self._held

    def _relayed(self) -> Progress | None:
        try:
            return last(self._relay.read_text(encoding="utf-8")) if self._relay else None
        except OSError:  # no worker has reported yet
            return None


@contextmanager
def exporting(environment: Mapping[str, str]) -> Iterator[Exporter]:
    """Export this pod's progress in this context, as far as the environment asks for it, and set the variables of the workers."""
    os.environ[OFF_VARIABLE] = "TRUE"
    with _relay_file() as path:
        exporter = Exporter(path)
        server, poster = _serve(exporter, environment), _poster(exporter, environment)
        try:
            yield exporter
        finally:
            for part in (poster, server):
                with suppress(Interrupted):  # the work has ended and its result is written: SIGTERM must not change the exit code
                    if part:
                        part.close()


@contextmanager
def _relay_file() -> Iterator[Path | None]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="finetune-progress-"))
    except OSError:  # without it, the reports of workers are only in the log
        yield None
        return
    os.environ[RELAY_VARIABLE] = str(folder / "newest")
    try:
        yield folder / "newest"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def relay(environment: Mapping[str, str]) -> Callable[[Progress], None] | None:
    """Return what a worker calls with its reports, ``None`` where nothing exports them."""
    path = environment.get(RELAY_VARIABLE)
    return None if path is None else lambda progress: _leave(Path(path), progress)


def _leave(path: Path, progress: Progress) -> None:
    """Replace the file in one step, so that a reader finds a whole report. It need not survive a crash, so it is not synced."""
    part = path.with_suffix(".part")
    try:
        part.write_text(line(progress), encoding="utf-8")
        part.replace(path)
    except OSError:  # a full volume: a report is no reason to stop the work
        pass


def _serve(exporter: Exporter, environment: Mapping[str, str]) -> ProgressServer | None:
    text = environment.get(METRICS_PORT_VARIABLE)
    if not text:
        return None
    try:
        return ProgressServer(listen(_port(text)), exporter.body)
    except (OSError, ValueError) as error:
        cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        remedy = "free the port" if isinstance(error, OSError) else f"set another {METRICS_PORT_VARIABLE}"
        exporter.warnings.append(
            f"port {text} of the pod: progress cannot be served there ({cause}), so OpenShift AI does not show it; {remedy}."
        )
        return None


def _port(text: str) -> int:
    """Return the port.

    Raises:
        ValueError: OpenShift AI does not accept it.
    """
    port = int(text)
    if port not in PORTS:
        raise ValueError(f"it is not between {PORTS.start} and {PORTS.stop - 1}")
    return port


def _poster(exporter: Exporter, environment: Mapping[str, str]) -> StatusPoster | None:
    server = StatusServer.of_environment(environment)
    return StatusPoster(server, exporter.newest) if server else None
