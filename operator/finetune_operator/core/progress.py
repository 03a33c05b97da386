"""Progress of the most important running stage: from its TrainJob, or from the end of its log. The newest report counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from finetune_contract.progress import Progress, last
from finetune_contract.result import HISTORY_LIMIT, LossPoint, thin
from finetune_operator.api.stages import TRAINING

from . import stages
from .paths import Json
from .plan_builder import PlanBuilder
from .run import StageStatus
from .times import stamp
from .trainjob_reports import reports_of

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
    yield from reports_of(builder.observed.child(stage_status) or {})
    logs = (builder.observed.logs.get(pod.name, "") for pod in builder.observed.pods.get(stage_status.name, ()) if pod.rank == 0)
    yield from (report for report in map(last, logs) if report is not None)


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
