"""The newest report of a pod: of this process or of a worker, held for pollers, and what happens where it cannot be served."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.progress import Progress
from finetune_stages.sdk import exporter as module
from finetune_stages.sdk.exporter import HOLD_SECONDS, RELAY_VARIABLE, Exporter, exporting, relay
from finetune_stages.sdk.fault import Interrupted
from trainer_server import trainer_server

from .plain_stage import stage_inputs


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (RELAY_VARIABLE, "DISABLE_KUBEFLOW_INTEGRATION"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def poll(port: int) -> Any:
    """What OpenShift AI's controller reads."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
        connection.request("GET", "/metrics")
        return json.loads(connection.getresponse().read())


def test_a_response_changes_with_a_report_and_only_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    exporter = Exporter()
    first = exporter.body()
    assert json.loads(first) == {"progressPercentage": 0, "trainMetrics": {}}
    now[0] += HOLD_SECONDS
    assert exporter.body() == first, "without a report nothing changes"
    exporter.report(Progress(10, step=1, total_steps=9, time=1))
    second = exporter.body()
    assert json.loads(second)["currentStep"] == 1, "a report after a pause is there at once"
    for step in range(2, 9):
        exporter.report(Progress(10, step=step, total_steps=9, time=step))
        now[0] += HOLD_SECONDS / 8
        assert exporter.body() == second
    now[0] += HOLD_SECONDS / 8
    assert json.loads(exporter.body())["currentStep"] == 8


def test_the_worker_s_reports_reach_the_exporter(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path / "newest")
    worker = relay({RELAY_VARIABLE: str(tmp_path / "newest")})
    assert worker is not None
    assert exporter.newest() is None
    exporter.report(Progress(5, note="starting workers", time=10))
    assert exporter.newest() == Progress(5, note="starting workers", time=10)
    worker(Progress(0, note="loading the model", time=15))
    assert exporter.newest() == Progress(5, note="loading the model", time=15), (
        "a worker begins at 0, and the percentage does not"
    )
    worker(Progress(40, step=4, total_steps=10, time=20))
    assert exporter.newest() == Progress(40, step=4, total_steps=10, time=20)
    exporter.report(Progress(100, time=30))
    assert exporter.newest() == Progress(100, time=30)
    (tmp_path / "newest").write_text("garbage")
    assert exporter.newest() == Progress(100, time=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest"]


def test_a_worker_whose_report_cannot_be_written_continues(tmp_path: Path) -> None:
    worker = relay({RELAY_VARIABLE: str(tmp_path / "absent" / "newest")})
    assert worker is not None
    worker(Progress(1))
    assert relay({}) is None


def test_it_serves_and_sets_the_variables_of_the_workers_and_leaves_nothing(free_port: int) -> None:
    with exporting({"FINETUNE_METRICS_PORT": str(free_port)}) as exporter:
        assert exporter.warnings == []
        assert os.environ["DISABLE_KUBEFLOW_INTEGRATION"] == "TRUE"
        path = Path(os.environ[RELAY_VARIABLE])
        worker = relay(os.environ)
        assert worker is not None
        worker(Progress(40, time=1))
        assert poll(free_port) == {"progressPercentage": 40, "trainMetrics": {}}
    assert not path.parent.exists()
    with pytest.raises(ConnectionRefusedError):
        poll(free_port)


@pytest.mark.parametrize("environment", [{}, {"FINETUNE_METRICS_PORT": ""}], ids=["not set", "local mode"])
def test_without_a_port_nothing_is_served(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_port: int) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "listen", never)
    with exporting(environment) as exporter:
        assert exporter.warnings == []


@pytest.mark.parametrize(
    ("port", "cause"),
    [("80", "it is not between 1024 and 65535"), ("65536", "it is not between"), ("-1", "it is not between"), ("http", "invalid literal")],
)  # fmt: skip
def test_a_port_that_openshift_ai_does_not_accept_is_a_warning(port: str, cause: str) -> None:
    with exporting({"FINETUNE_METRICS_PORT": port}) as exporter:
        (warning,) = exporter.warnings
    assert warning.startswith(f"port {port} of the pod: ")
    assert cause in warning


def test_without_a_folder_for_temporary_files_the_own_reports_are_served(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tempfile, "mkdtemp", full)
    with exporting({"FINETUNE_METRICS_PORT": str(free_port)}) as exporter:
        exporter.report(Progress(7, time=1))
        assert poll(free_port)["progressPercentage"] == 7
        assert RELAY_VARIABLE not in os.environ


def test_sigterm_while_the_last_report_is_sent_does_not_change_how_the_program_ends(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with trainer_server(tmp_path) as trainer:
            with exporting(trainer.environment) as exporter:
                exporter.report(Progress(40, time=1))
                while not trainer.posts:
                    time.sleep(0.01)
                time.sleep(0.3)
                trainer.delay = 1
                exporter.report(Progress(100, time=2))
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
                started = time.monotonic()
            assert 0.2 < time.monotonic() - started < 1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_port_that_is_taken_is_a_warning_in_log_and_result_and_not_in_what_is_reused(stage: Any) -> None:
    with socket.create_server(("", 0)) as other:
        port = str(other.getsockname()[1])
        ended = stage(stage_inputs(warnings=["of the work"]), environment={"FINETUNE_METRICS_PORT": port})
    warning = f"port {port} of the pod: progress cannot be served there (Address already in use), so OpenShift AI does not show it; free the port."
    assert (ended.code, ended.result.warnings) == (0, ("of the work", warning))
    assert ended.output.count(f"training: warning: {warning}\n") == 1
    assert "free the port" not in (stage.folder / "results/training.json").read_text()
