"""Which logs are read before a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.reads import log_to_read, logs_to_read
from finetune_operator.core.run import Run, StageStatus
from world import SETTINGS, World

STAMP = "2026-11-21T12:00:00Z"
RUNNING = StageStatus("training", "Running", 1)


@pytest.mark.parametrize(
    ("record", "pods", "last", "wanted"),
    [
        (RUNNING, (PodReport("a", 0, "Running"),), None, "a"),
        (RUNNING, (PodReport("a", 0, "Running"),), "2026-11-21T11:59:00Z", "a"),
        (RUNNING, (PodReport("a", 0, "Running"),), "2026-11-21T11:59:55Z", None),
        (RUNNING, (PodReport("a", 0, "Pending"), PodReport("b", 1, "Running")), None, None),
        (RUNNING, (PodReport("a", 0, "Running"), PodReport("b", 1, "Failed", Termination(1))), STAMP, "b"),
        (RUNNING, (PodReport("a", 0, "Failed", rejected="Evicted"),), None, None),
        (RUNNING.but(reason="Starting"), (PodReport("a", 0, "Running"),), None, None),
        (RUNNING.but(state="Retrying"), (PodReport("a", 0, "Running"),), None, None),
        (RUNNING, (), None, None),
    ],
)
def test_whose_log_is_read(record: StageStatus, pods: tuple[PodReport, ...], last: str | None, wanted: str | None) -> None:
    place = SETTINGS.__class__(**{**SETTINGS.__dict__, "progress_seconds": 10.0})
    assert log_to_read(record, pods, last, STAMP, place) == wanted


@pytest.mark.parametrize(
    ("told", "looks", "phases", "wanted"),
    [
        (None, {}, ("Running", "Running"), ("dataset-0", "model-0")),
        (None, {"model-0": "2026-11-21T11:59:55Z"}, ("Running", "Running"), ("dataset-0",)),
        ("2026-11-21T11:59:55Z", {}, ("Running", "Running"), ()),
        (None, {}, ("Running", "Succeeded"), ()),
        (None, {}, ("Running", "Failed"), ("model-0",)),
    ],
    ids=["nothing known", "one was looked at", "one was told", "one has ended", "one has failed"],
)
def test_whose_logs_are_read(told: str | None, looks: dict[str, str], phases: tuple[str, str], wanted: tuple[str, ...]) -> None:
    place = replace(SETTINGS, progress_seconds=10.0)
    stages = {
        name: StageStatus(name, "Running", 1, child_kind="Job", child_name=name).as_status() for name in ("dataset", "model")
    }
    run = World.new().run
    run["status"] = {"phase": "Running", "stages": list(stages.values()), "progress": {"lastReport": told} if told else {}}
    end = {"Failed": Termination(1), "Succeeded": Termination(0)}
    pods = {
        name: (PodReport(f"{name}-0", 0, phase, end.get(phase)),)
        for name, phase in zip(("dataset", "model"), phases, strict=True)
    }
    assert logs_to_read(Run.parse(run), {}, pods, looks, now_stamp=STAMP, settings=place) == wanted
