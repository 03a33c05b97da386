"""Progress of the most important running stage: from the status of its TrainJob, or from the end of its log.

Others write the status of a TrainJob: the status server of Kubeflow Trainer (2.2 and later, feature gate ``TrainJobStatus``) or the
controller of OpenShift AI. So malformed reports are ignored. The newest report counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from finetune_contract.progress import Progress, from_rhoai, last
from finetune_contract.result import HISTORY_LIMIT, LossPoint, thin
from finetune_operator.api.stages import TRAINING

from . import stages
from .paths import Json, lookup
from .plan_builder import PlanBuilder
from .run import StageStatus
from .times import moment, stamp

T = TypeVar("T")
RHOAI_STATUS = "trainer.opendatahub.io/trainerStatus"
"""The annotation in which OpenShift AI keeps a TrainJob's progress, as JSON."""
_LARGEST = 2**63 - 1
"""The largest whole number that the API server accepts."""


def watch_progress(builder: PlanBuilder) -> None:
    """Write the newest report of the most important running stage into status; clear that of a stage that no longer runs."""
    shown = (builder.run.status.get("progress") or {}).get("stage")
    for name in stages.GRAPH.by_progress:
        stage_status = builder.stages.get(name)
        if stage_status is None or stage_status.state != "Running":
            continue
        report = max(_reports(builder, stage_status), key=lambda report: _seconds(builder, report), default=None)
        if report is not None:
            _write(builder, name, report)
            return
        if shown == name:
            return
    builder.fields["progress"] = None


def _reports(builder: PlanBuilder, stage_status: StageStatus) -> Iterator[Progress]:
    """Yield the reports on a stage. Of two reports from the same second the first counts."""
    child = builder.observed.child(stage_status) or {}
    annotation = (lookup(child, "metadata.annotations") or {}).get(RHOAI_STATUS)
    logs = (builder.observed.logs.get(pod.name, "") for pod in builder.observed.pods.get(stage_status.name, ()) if pod.rank == 0)
    found = (of_trainer(lookup(child, "status.trainerStatus")), of_rhoai(annotation), *map(of_log, logs))
    yield from (report for report in found if report is not None)


def of_trainer(status: Any) -> Progress | None:
    """Return the report in a TrainJob's ``status.trainerStatus``, where numbers are strings."""
    if not isinstance(status, Mapping):
        return None
    entries = status.get("metrics")
    entries = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    metrics = {entry["name"]: entry.get("value") for entry in entries if isinstance(entry.get("name"), str)}
    return _dated({
        **status, "currentStep": metrics.get("current_step"), "totalSteps": metrics.get("total_steps"),
        "currentEpoch": metrics.get("current_epoch", metrics.get("epoch")),
        "trainMetrics": {"loss": metrics.get("loss"), "throughput": metrics.get("tokens_per_second")},
    })  # fmt: skip


def of_rhoai(annotation: Any) -> Progress | None:
    """Return the report in the annotation of OpenShift AI."""
    data = _or_none(lambda: json.loads(annotation)) if isinstance(annotation, str) else None
    return _dated(data) if isinstance(data, Mapping) else None


def of_log(log: str) -> Progress | None:
    """Return the newest report in the last lines of a stage's log."""
    return _or_none(lambda: last(log))


def _dated(data: Mapping[str, Any]) -> Progress | None:
    """Return a report of another component, ``None`` without a time: it could not be compared with other reports."""
    time = data.get("lastUpdatedTime")
    seconds = _or_none(lambda: _since_1970(time)) if isinstance(time, str) else None
    report = _or_none(lambda: from_rhoai({**data, "time": None, "note": None}))
    return replace(report, time=seconds) if report is not None and seconds is not None else None


def _since_1970(time: str) -> int:
    found = moment(time)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _or_none(read: Callable[[], T]) -> T | None:
    """Return what ``read`` returns, ``None`` where the input is malformed, nested too deeply or out of range."""
    try:
        return read()
    except (ValueError, OverflowError, RecursionError):
        return None


def _seconds(builder: PlanBuilder, report: Progress) -> int:
    """Return the time of a report in seconds since 1970, at most the present: clocks differ. A report without a time is as new as its log."""
    now = int(builder.now.timestamp())
    return now if report.time is None else max(0, min(now, report.time))


def _write(builder: PlanBuilder, stage: str, report: Progress) -> None:
    known = builder.run.status.get("progress") or {}
    known = known if known.get("stage") == stage else {}
    values = {
        "stage": stage, "percent": report.percent, "step": _whole(report.step), "totalSteps": _whole(report.total_steps),
        "epoch": report.epoch, "etaSeconds": _whole(report.eta_seconds), "loss": report.loss,
        "tokensPerSecond": report.tokens_per_second, "note": report.note,
    }  # fmt: skip
    found: Json = {key: value for key, value in values.items() if value is not None}
    seconds = _seconds(builder, report)
    reported = stamp(datetime.fromtimestamp(seconds, UTC))
    same = {**known, "lastReport": reported} == {**found, "lastReport": reported}
    if reported < known.get("lastReport", "") or (same and seconds != report.time):
        return  # older than the known report, or the same report with a time that was set here
    builder.fields["progress"] = {**found, "lastReport": reported}
    if stage == TRAINING.name and "loss" in found and "step" in found:
        _extend_history(builder, LossPoint(found["step"], found["loss"]))


def _whole(number: int | None) -> int | None:
    """Return a count if status can hold it."""
    return number if number is not None and 0 <= number <= _LARGEST else None


def _extend_history(builder: PlanBuilder, point: LossPoint) -> None:
    known = [LossPoint(entry["step"], entry["loss"]) for entry in builder.run.status.get("history") or ()]
    if known and known[-1].step >= point.step:
        known = [old for old in known if old.step < point.step]  # a new attempt starts again
    points = thin([*known, point], HISTORY_LIMIT)
    builder.fields["history"] = [{"step": entry.step, "loss": entry.loss} for entry in points]
