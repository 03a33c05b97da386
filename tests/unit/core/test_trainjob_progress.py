"""Whose word on a training's progress counts: Trainer's, OpenShift AI's, or the log's; and that no word of theirs can do harm."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.progress import MARK, Progress, last, line, to_rhoai, to_trainer
from finetune_operator.api.crd import crd
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.reads import log_to_read
from finetune_operator.core.run import StageStatus
from finetune_operator.core.times import stamp
from finetune_operator.core.trainjob_reports import FRESH_SECONDS, RHOAI_STATUS, of_rhoai, of_trainer, replaces_log
from finetune_operator.validation import Validator
from unit.core.passes import child, decide, go, run_of, world_at
from world import NOW, SETTINGS, World

Object = dict[str, Any]
JUDGE = Validator(crd())
T0 = int(NOW.timestamp())
"""Now. Times below are seconds before it."""
TRAINING = world_at("training")


def trainer_status(percent: Any, ago: int = 0, eta: Any = None, **metrics: Any) -> Object:
    """As Trainer's status server keeps it: every number of the trainer is a text."""
    entries = [{"name": name, "value": str(value)} for name, value in metrics.items()]
    return {"progressPercentage": percent, "estimatedRemainingSeconds": eta, "metrics": entries, "lastUpdatedTime": before(ago)}


def annotation(percent: Any, ago: int = 0, **more: Any) -> str:
    """As OpenShift AI's controller writes it."""
    return json.dumps({"progressPercentage": percent, "lastUpdatedTime": before(ago), **more})


def before(seconds: int) -> str:
    return stamp(NOW - timedelta(seconds=seconds))


def training() -> World:
    """A run whose training runs on one pod."""
    return TRAINING.copy()


def say(world: World, status: Any = None, note: str | None = None) -> None:
    """Others write into the TrainJob."""
    ref = child(world, "training")
    job = world.objects[ref]
    metadata = {**job["metadata"], "annotations": {**job["metadata"]["annotations"], **({RHOAI_STATUS: note} if note else {})}}
    world.objects[ref] = {**job, "metadata": metadata, "status": {**job.get("status", {}), "trainerStatus": status}}


def seen(world: World, log: str | None = None) -> Object:
    """Return the status of the run after one pass."""
    logs = {} if log is None else {f"{child(world, 'training').name}-0": log}
    return go(world, logs=logs).status.get("progress") or {}


def logged(percent: int, ago: int = 0, **more: Any) -> str:
    return line(Progress(percent, time=T0 - ago, **more))


def test_everything_in_trainer_s_status_is_reported() -> None:
    world = training()
    say(world, trainer_status(45, 5, eta=1200, loss="1.875", current_step="450", total_steps="1000", current_epoch="1.35"))
    assert seen(world) == {
        "stage": "training", "percent": 45, "step": 450, "totalSteps": 1000, "epoch": 1.35, "etaSeconds": 1200, "loss": 1.875,
        "lastReport": before(5),
    }  # fmt: skip
    assert run_of(world).status["history"] == [{"step": 450, "loss": 1.875}]


def test_everything_in_openshift_ai_s_annotation_is_reported() -> None:
    world = training()
    more = {
        "estimatedRemainingSeconds": 60, "estimatedRemainingTimeSummary": "1 minute", "currentStep": 3, "totalSteps": 9, "currentEpoch": 0.3,
        "totalEpochs": 1, "trainMetrics": {"loss": 2, "learning_rate": 1e-5, "throughput": 99.5}, "evalMetrics": {},
    }  # fmt: skip
    say(world, note=annotation(33, 7, **more))
    assert seen(world) == {
        "stage": "training", "percent": 33, "step": 3, "totalSteps": 9, "epoch": 0.3, "etaSeconds": 60, "loss": 2.0,
        "tokensPerSecond": 99.5, "lastReport": before(7),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "note", "log", "percent"),
    [
        (trainer_status(10, 5), annotation(20, 5), logged(30, 5), 10),
        (trainer_status(10, 9), annotation(20, 5), logged(30, 5), 20),
        (trainer_status(10, 9), annotation(20, 9), logged(30, 5), 30),
        (trainer_status(10, 1), annotation(20, 9), None, 10),
        (None, annotation(20, 9), None, 20),
        (None, None, logged(30, 5), 30),
        (None, None, line(Progress(30)), 30),
        (trainer_status(10, 5), None, line(Progress(30)), 30),
        ({**trainer_status(10), "lastUpdatedTime": None}, annotation(20, 5), None, 20),
        (trainer_status(None, 1), annotation(20, 5), None, 20),
        (trainer_status(10, 5), "no JSON", "nothing of ours", 10),
        (None, None, "nothing of ours", None),
        ("odd", "[]", None, None),
    ],
)
def test_the_newest_word_counts(status: Any, note: str | None, log: str | None, percent: int | None) -> None:
    world = training()
    say(world, status, note)
    assert seen(world, log).get("percent") == percent


def test_what_is_known_is_not_taken_back_by_a_word_that_is_older() -> None:
    world = training()
    assert seen(world, logged(50, 3))["percent"] == 50
    say(world, trainer_status(40, 4))
    assert seen(world)["percent"] == 50
    say(world, trainer_status(60, 2))
    assert seen(world)["percent"] == 60
    assert seen(world, logged(55, 3))["percent"] == 60


def test_a_clock_that_is_fast_is_not_believed_and_causes_no_writing() -> None:
    world = training()
    say(world, trainer_status(40, -3600))
    assert seen(world)["lastReport"] == stamp(NOW)
    status = run_of(world).status
    assert decide(world, NOW + timedelta(seconds=30)).status["progress"] == status["progress"]
    say(world, trainer_status(41, -3600))
    assert go(world, NOW + timedelta(seconds=40)).status["progress"]["lastReport"] == stamp(NOW + timedelta(seconds=40))


def test_a_new_attempt_starts_from_the_beginning() -> None:
    world = training()
    seen(world, logged(90, 3, step=9, loss=1.0))
    world.remove(child(world, "training"))
    for _ in range(3):
        go(world)
    assert child(world, "training").name.endswith("-2")
    assert seen(world, logged(10, 0, step=1, loss=3.0))["percent"] == 10
    assert run_of(world).status["history"] == [{"step": 1, "loss": 3.0}]


def test_only_the_log_of_the_first_pod_is_read_and_none_after_its_end() -> None:
    world = training()
    assert seen(world, logged(50, 3))["percent"] == 50
    world.finish(child(world, "training"))
    assert "progress" not in go(world).status


@pytest.mark.parametrize(
    ("mode", "active", "last", "due"),
    [
        ("cluster", 0, None, True), ("cluster", 199, 10, True), ("cluster", 199, 9, False), ("cluster", 201, 10, False),
        ("cluster", 400, 20, True), ("cluster", 400, 19, False), ("cluster", 36_000, 1799, False), ("cluster", 36_000, 1800, True),
        ("cluster", 36_000, None, True), ("local", 36_000, 10, True), ("local", 36_000, 9, False),
    ],
)  # fmt: skip
def test_a_log_is_looked_at_every_ten_seconds_or_twenty_times_in_what_the_stage_has_taken(
    mode: Any, active: int, last: int | None, due: bool
) -> None:
    place = replace(SETTINGS, mode=mode, progress_seconds=10.0)
    record = StageStatus("training", "Running", 1, started_at=before(active))
    told = None if last is None else before(last)
    assert (log_to_read(record, [PodReport("a", 0, "Running")], told, stamp(NOW), place) == "a") == due


def test_the_log_of_a_failed_pod_is_read_immediately() -> None:
    record = StageStatus("training", "Running", 1, started_at=before(36_000))
    pods = [PodReport("a", 0, "Running"), PodReport("b", 1, "Failed", Termination(1))]
    assert log_to_read(record, pods, before(1), stamp(NOW), replace(SETTINGS, mode="cluster")) == "b"


whole = st.integers() | st.sampled_from([-1, 2**31, 2**63, 10**400])
odd: st.SearchStrategy[Any] = st.sampled_from([
    None, True, "", "NaN", "-Infinity", "1e999", "12", " 7 ", "9" * 5000, "x", [], {}, [1], {"a": {}}, "0001-01-01T00:00:00+14:00",
])  # fmt: skip
values = whole | st.floats() | odd | st.text(max_size=8)
times = (
    values | st.datetimes().map(str) | st.sampled_from([before(0), before(-(10**9)), "2026-11-21", "9999-12-31T23:59:59-14:00"])
)
keys = ("estimatedRemainingSeconds", "currentStep", "totalSteps", "currentEpoch", "totalEpochs", "note")
reports = st.fixed_dictionaries(
    {"progressPercentage": st.integers(-1, 101) | values, "lastUpdatedTime": times, "time": times},
    optional={
        **dict.fromkeys(keys, values), "trainMetrics": values | st.dictionaries(st.sampled_from(["loss", "throughput"]), values),
        "metrics": values | st.lists(values | st.fixed_dictionaries({}, optional={"name": st.sampled_from(["loss", "current_step", "epoch"]) | values, "value": values})),
    },
)  # fmt: skip
texts = (
    reports.map(json.dumps) | st.text(max_size=50) | st.sampled_from(["[" * 20_000, '{"a":' * 9_000, "1" * 5000, "NaN", "null"])
)


@settings(deadline=None, max_examples=120)
@given(status=reports | values, note=texts, log=texts)
def test_no_word_of_others_stops_a_run_or_makes_a_status_that_cannot_be_written(status: Any, note: str, log: str) -> None:
    world = training()
    say(world, status, note)
    for now in (NOW, NOW + timedelta(minutes=1)):
        decision = decide(world, now, logs={f"{child(world, 'training').name}-0": f"{MARK}{log}"})
        written = json.loads(json.dumps(decision.status, allow_nan=False))
        world.write_status(written)
        metadata = {"name": "demo", "namespace": "team", "resourceVersion": "1", "uid": "u"}
        document = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", **world.run, "metadata": metadata}
        assert JUDGE.update(document, {key: value for key, value in document.items() if key != "status"}, status=True) == []
    for report in (of_trainer(status), of_rhoai(note), last(MARK + log)):
        assert report is None or 0 <= report.percent <= 100


whole_reports = st.builds(
    Progress, percent=st.integers(0, 100), step=st.none() | st.integers(0, 10**9), total_steps=st.none() | st.integers(0, 10**9),
    epoch=st.none() | st.floats(0, 100), eta_seconds=st.none() | st.integers(0, 10**9), loss=st.none() | st.floats(0, 100),
    tokens_per_second=st.none() | st.floats(0, 1e6), time=st.integers(0, T0),
)  # fmt: skip


@given(whole_reports)
def test_what_the_program_exports_comes_back_unchanged(report: Progress) -> None:
    assert of_trainer(to_trainer(report)["trainerStatus"]) == report
    updated = {"lastUpdatedTime": to_trainer(report)["trainerStatus"]["lastUpdatedTime"]}
    assert of_rhoai(json.dumps({**to_rhoai(report), **updated})) == report


IN_LOOP = {"current_step": 3, "total_steps": 9}


@pytest.mark.parametrize(
    ("status", "note", "replaces"),
    [
        (trainer_status(33, 5, **IN_LOOP), None, True),
        (None, annotation(33, 5, currentStep=3, totalSteps=9), True),
        (trainer_status(33, 900, **IN_LOOP), annotation(33, 5, currentStep=3, totalSteps=9), True),
        (trainer_status(33, FRESH_SECONDS, **IN_LOOP), None, True),
        (trainer_status(33, FRESH_SECONDS + 1, **IN_LOOP), None, False),
        (trainer_status(33, -FRESH_SECONDS - 1, **IN_LOOP), None, False),
        (trainer_status(0, 5), None, False),
        (trainer_status(99, 5, current_step=9, total_steps=9), None, False),
        (trainer_status(33, 5, current_step=3), None, False),
        (trainer_status("x", 5, **IN_LOOP), "no JSON", False),
        (None, None, False),
    ],
    ids=["status", "annotation", "old status", "just fresh", "too old", "from the future", "no step yet", "last step is done", "no total",
         "malformed", "nothing"],
)  # fmt: skip
def test_a_fresh_report_from_the_training_loop_replaces_the_log(status: Any, note: str | None, replaces: bool) -> None:
    annotations = {} if note is None else {RHOAI_STATUS: note}
    assert replaces_log({"metadata": {"annotations": annotations}, "status": {"trainerStatus": status}}, T0) == replaces


def test_only_the_first_metrics_and_a_short_annotation_are_read() -> None:
    status = to_trainer(Progress(50, step=5, time=T0))["trainerStatus"]
    other = [{"name": "x", "value": "1"}] * 64
    assert of_trainer({**status, "metrics": [*other[1:], *status["metrics"][:1]]}) == Progress(50, step=5, time=T0)
    assert of_trainer({**status, "metrics": [*other, *status["metrics"]]}) == Progress(50, time=T0)
    note = json.dumps({**to_rhoai(Progress(50, step=5)), "lastUpdatedTime": status["lastUpdatedTime"]})
    assert of_rhoai(note) == Progress(50, step=5, time=T0)
    assert of_rhoai(note + " " * 16384) is None
