"""Reports to a status server that behaves as Kubeflow Trainer's, over real TLS; and servers that do not answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.certificates import Authority
from finetune_contract.progress import Progress
from finetune_stages.sdk.trainer_status import NotReported, StatusPoster, StatusServer
from trainer_server import PATH, TrainerServer, trainer_server


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[TrainerServer]:
    with trainer_server(tmp_path) as trainer:
        yield trainer


def client(trainer: TrainerServer) -> StatusServer:
    found = StatusServer.of_environment(trainer.environment)
    assert found is not None
    return found


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_token_is_read_for_each_report_and_no_proxy_is_used(trainer: TrainerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    client(trainer).post(Progress(5, time=10))
    (trainer.folder / "token").write_text("second")
    client(trainer).post(Progress(6, time=20))
    (first, second) = trainer.posts
    assert first[:2] == (PATH, "Bearer first")
    assert second[:2] == (PATH, "Bearer second")
    assert second[2] == {"trainerStatus": {"progressPercentage": 6, "metrics": [], "lastUpdatedTime": "1970-01-01T00:00:20Z"}}


@pytest.mark.parametrize("missing", ["URL", "CA_CERT", "TOKEN"])
def test_without_all_of_it_there_is_no_server(missing: str) -> None:
    environment = {f"KUBEFLOW_TRAINER_SERVER_{name}": "x" for name in ("URL", "CA_CERT", "TOKEN") if name != missing}
    assert StatusServer.of_environment(environment) is None


def test_each_failure_has_its_cause(trainer: TrainerServer, tmp_path: Path) -> None:
    trainer.status = 403
    with pytest.raises(NotReported, match=r'status: HTTP 403: \{"message": "Forbidden"\}'):
        client(trainer).post(Progress(5))
    right, stranger = client(trainer), Authority(tmp_path / "stranger")
    stranger.create()
    for wrong, cause in (
        (StatusServer(right.url.replace("https", "http"), right.ca, right.token), "no https address"),
        (StatusServer("https://localhost:99999", right.ca, right.token), "Port out of range"),
        (StatusServer("https://localhost:1", right.ca, right.token), "refused"),
        (StatusServer(right.url, stranger.pair.certificate, right.token), "CERTIFICATE_VERIFY_FAILED"),
        (StatusServer(right.url, tmp_path / "absent", right.token), "No such file"),
        (StatusServer(right.url, right.ca, tmp_path / "absent"), "No such file"),
    ):
        with pytest.raises(NotReported, match=cause):
            wrong.post(Progress(5))
    (tmp_path / "token").write_text("two\nlines")
    with pytest.raises(NotReported, match="Invalid header value"):
        client(trainer).post(Progress(5))


def test_a_server_that_accepts_and_is_silent_is_given_up_in_time(trainer: TrainerServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = StatusServer(f"https://127.0.0.1:{silent.getsockname()[1]}/", client(trainer).ca, client(trainer).token)
        started = time.monotonic()
        with pytest.raises(NotReported, match="timed out"):
            server.post(Progress(5), timeout=0.3)
        assert time.monotonic() - started < 2


def test_changes_are_posted_within_the_rate_and_the_end_at_once(trainer: TrainerServer) -> None:
    reports = [Progress(1, time=1)]
    poster = StatusPoster(client(trainer), lambda: reports[-1], seconds=60)
    until(lambda: trainer.posts)
    for percent in range(2, 50):
        reports.append(Progress(percent, time=percent))
        time.sleep(0.01)
    reports.append(Progress(100, time=99))
    poster.close()
    assert [body["trainerStatus"]["progressPercentage"] for _, _, body in trainer.posts] == [1, 100]


def test_what_has_not_changed_is_not_posted_again(trainer: TrainerServer) -> None:
    poster = StatusPoster(client(trainer), lambda: Progress(1, time=1), seconds=0.05)
    until(lambda: trainer.posts)
    time.sleep(0.4)
    poster.close()
    assert len(trainer.posts) == 1


def test_failures_are_logged_once_and_retried(trainer: TrainerServer, capsys: pytest.CaptureFixture[str]) -> None:
    trainer.status = 500
    poster = StatusPoster(client(trainer), lambda: Progress(1, time=1), seconds=0.05)
    until(lambda: len(trainer.posts) >= 3)
    trainer.status = 200
    count = len(trainer.posts)
    until(lambda: len(trainer.posts) > count)
    poster.close()
    assert capsys.readouterr().out.count("progress is not reported to Kubeflow Trainer") == 1


def test_a_server_that_does_not_answer_does_not_delay_the_end(trainer: TrainerServer) -> None:
    trainer.delay = 30
    poster = StatusPoster(client(trainer), lambda: Progress(1, time=1), seconds=0.05)
    time.sleep(1.3)
    started = time.monotonic()
    poster.close()
    assert time.monotonic() - started < 0.5


def test_a_server_that_stops_answering_delays_the_end_by_two_seconds_at_most(trainer: TrainerServer) -> None:
    reports = [Progress(1, time=1)]
    poster = StatusPoster(client(trainer), lambda: reports[-1], seconds=60)
    until(lambda: trainer.posts)
    trainer.delay = 30
    reports.append(Progress(100, time=2))
    started = time.monotonic()
    poster.close()
    assert time.monotonic() - started < 3
