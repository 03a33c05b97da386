"""The progress of a real training, as OpenShift AI's controller polls it and as Kubeflow Trainer's server receives it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trainer_server import trainer_server

from .test_together import two_nodes, two_workers

NAMES = {"loss", "learning_rate", "tokens_per_second", "current_step", "total_steps", "current_epoch", "total_epochs"}
"""Of our metrics. The callback in transformers would add ``grad_norm`` and others, and report 100 before the model is written."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def polled(running: Any, port: int) -> list[Any]:
    """The responses until the program ends."""
    found = []
    while running.process.poll() is None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
                connection.request("GET", "/metrics")
                found.append(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_is_served_and_posted_until_its_end(bench: Any, inputs: Any, tmp_path: Path, processes: int) -> None:
    port = free_port()
    variables = two_workers() if processes == 2 else {}
    with trainer_server(tmp_path) as trainer:
        environment = {**variables, **trainer.environment, "FINETUNE_METRICS_PORT": str(port)}
        running = bench.start(inputs(epochs=40), environment=environment)
        bodies = polled(running, port)
        ended = running.wait()
    assert (ended.code, ended.result.warnings) == (0, ()), ended.errors
    assert bodies[0] == {"progressPercentage": 0, "trainMetrics": {}}
    percentages = [body["progressPercentage"] for body in bodies]
    assert percentages == sorted(percentages)
    assert percentages[-1] < 100
    assert any(body.get("currentStep", 0) > 0 and body["totalEpochs"] == 40 for body in bodies)

    posted = [body["trainerStatus"] for _, _, body in trainer.posts]
    assert max(status["progressPercentage"] for status in posted[:-1]) < 100
    assert (posted[-1]["progressPercentage"], posted[-1]["estimatedRemainingSeconds"]) == (100, 0)
    assert {metric["name"] for metric in posted[-1]["metrics"]} == NAMES
    assert {metric["name"] for status in posted for metric in status["metrics"]} == NAMES
    assert "not reported" not in ended.output


def test_only_the_first_pod_serves(bench: Any, inputs: Any) -> None:
    """Two pods on one machine: if both did, one of them would warn."""
    port = str(free_port())
    pods = [bench.start(inputs(), environment={**variables, "FINETUNE_METRICS_PORT": port}) for variables in two_nodes()]
    for ended in [pod.wait() for pod in pods]:
        assert ended.code == 0, ended.errors
        assert "progress cannot be served" not in ended.output


def test_a_failure_of_workers_shows_how_far_they_were(bench: Any, inputs: Any) -> None:
    running = bench.start(inputs(epochs=500), environment=two_workers())
    bench.wait_for(lambda seen: (seen.step or 0) > 3)
    running.process.send_signal(signal.SIGTERM)
    message = json.loads(running.wait().message)
    assert message["currentStep"] > 3
    assert message["totalSteps"] > message["currentStep"]
