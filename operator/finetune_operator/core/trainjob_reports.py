"""Reports on progress that others write into a TrainJob.

They are the status server of Kubeflow Trainer (2.2 and later, feature gate ``TrainJobStatus``) and the controller of OpenShift AI. The
numbers are those of our stage program, but anything may be there, so malformed reports are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC
from typing import Any, TypeVar

from finetune_contract import strict_json
from finetune_contract.progress import EXPORT_SECONDS, Progress, from_rhoai

from .paths import lookup
from .times import moment

T = TypeVar("T")
RHOAI_STATUS = "trainer.opendatahub.io/trainerStatus"
"""The annotation in which OpenShift AI keeps a TrainJob's progress, as JSON."""
FRESH_SECONDS = 2 * EXPORT_SECONDS + 15
"""Age up to which a report of the training loop replaces the log: one report may be lost, and clocks differ."""


_ANNOTATION_LIMIT = 16 * 1024
"""Characters of the annotation. Annotations have up to 256 KiB, and every pass reads this one."""
_METRICS_LIMIT = 64
"""Metrics of a status that are read: Trainer's schema allows more, and ours are less than ten."""


def reports_of(child: Mapping[str, Any]) -> Iterator[Progress]:
    """Yield the reports in a child: that of Trainer first."""
    annotation = (lookup(child, "metadata.annotations") or {}).get(RHOAI_STATUS)
    for report in (of_trainer(lookup(child, "status.trainerStatus")), of_rhoai(annotation)):
        if report is not None:
            yield report


def replaces_log(child: Mapping[str, Any], now: int) -> bool:
    """Return whether a child has a fresh report from inside the training loop, so that no log is read for progress.

    Before the first step and after the last one, only the log has the current activity (loading, writing the model).

    Args:
        child: the Job or TrainJob.
        now: seconds since 1970.
    """
    return any(
        report.step is not None and report.step < (report.total_steps or 0) and abs(now - (report.time or 0)) <= FRESH_SECONDS
        for report in reports_of(child)
    )


def of_trainer(status: Any) -> Progress | None:
    """Return the report in a TrainJob's ``status.trainerStatus``, where numbers are strings."""
    if not isinstance(status, Mapping):
        return None
    entries = status.get("metrics")
    entries = [entry for entry in entries[:_METRICS_LIMIT] if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    metrics = {entry["name"]: entry.get("value") for entry in entries if isinstance(entry.get("name"), str)}
    return _dated({
        **status, "currentStep": metrics.get("current_step"), "totalSteps": metrics.get("total_steps"),
        "currentEpoch": metrics.get("current_epoch", metrics.get("epoch")),
        "trainMetrics": {"loss": metrics.get("loss"), "throughput": metrics.get("tokens_per_second")},
    })  # fmt: skip


def of_rhoai(annotation: Any) -> Progress | None:
    """Return the report in the annotation of OpenShift AI."""
    data = _or_none(lambda: strict_json.loads(annotation, _ANNOTATION_LIMIT)) if isinstance(annotation, str) else None
    return _dated(data) if isinstance(data, Mapping) else None


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
