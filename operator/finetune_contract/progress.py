"""Progress reports of a running stage: marked lines on standard output, and the same numbers in the forms that two controllers read.

The keys of a line are those that the controller of OpenShift AI reads (``progressPercentage``, ``currentStep`` ...), so the same object is
used in the termination message and in the response of the metrics port, which that controller polls for its dashboard.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from . import strict_json

MARK = "FINETUNE_PROGRESS "
METRICS_PORT = 28080
"""Port of rank 0 of a TrainJob, at which its progress is served: the default of OpenShift AI."""
METRICS_PORT_VARIABLE = "FINETUNE_METRICS_PORT"
"""Environment variable with that port; if it is empty or not set, nothing is served."""
EXPORT_SECONDS = 30
"""Seconds between two reports that reach a TrainJob: how often OpenShift AI polls, and how often a program posts to Kubeflow Trainer.

The status server of Trainer applies five reports per second for all TrainJobs of a cluster, so this interval is enough for 150 of them.
"""
_LINE_LIMIT = 4096
"""Characters of the JSON in a line. Longer lines are not ours."""
_LARGEST_COUNT = 2**53
"""The largest count in a report: up to here, every integer is exact in JSON."""
_LARGEST = 2**31 - 1
"""The largest value of an ``int32``, the type of the counts in a TrainJob's status."""


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Attributes:
        percent: integer from 0 to 100; 100 only after the work is done.
        step, total_steps: optimizer steps in training, rows or files or requests elsewhere.
        epoch: processed data, in epochs.
        eta_seconds: estimated remaining seconds.
        loss: mean training loss since the last report, in nats per trained token.
        tokens_per_second: over all processes.
        time: time of the report, in seconds since 1970 (UTC).
        note: the current activity ("downloading model.safetensors").
    """

    percent: int
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    total_epochs: int | None = None
    eta_seconds: int | None = None
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    time: int | None = None
    note: str | None = None


def unfinished(progress: Progress, before: Progress | None) -> Progress:
    """Return the report of a stage that has not ended: at most 99 percent, and no less than ``before``."""
    return replace(progress, percent=max(0, before.percent if before else 0, min(99, progress.percent)))


def to_rhoai(progress: Progress) -> dict[str, Any]:
    """Return the progress with the keys and types of OpenShift AI's controller, which rejects the whole object for one wrong type.

    All but ``currentEpoch`` and the metrics are integers; NaN and infinity are left out.
    """
    metrics = {"loss": progress.loss, "learning_rate": progress.learning_rate, "throughput": progress.tokens_per_second}
    values = {
        "progressPercentage": progress.percent,
        "estimatedRemainingSeconds": progress.eta_seconds,
        "currentStep": progress.step,
        "totalSteps": progress.total_steps,
        "currentEpoch": progress.epoch,
        "totalEpochs": progress.total_epochs,
    }
    return {**_finite(values), "trainMetrics": _finite(metrics)}


def to_metrics(progress: Progress) -> dict[str, Any]:
    """Return the response of the metrics port for a stage that has not ended.

    The controller of OpenShift AI takes ``estimatedRemainingSeconds: 0`` as the final report, and then ignores the termination message.
    """
    eta = None if progress.eta_seconds is None else max(1, progress.eta_seconds)
    return to_rhoai(replace(unfinished(progress, None), eta_seconds=eta))


def to_trainer(progress: Progress) -> dict[str, Any]:
    """Return the progress as the request that the status server of Kubeflow Trainer accepts (2.2 and later).

    The names of the metrics are those of the callback in transformers. A report without a time is as old as 1970.
    """
    values = {
        "loss": progress.loss,
        "learning_rate": progress.learning_rate,
        "tokens_per_second": progress.tokens_per_second,
        "current_step": progress.step,
        "total_steps": progress.total_steps,
        "current_epoch": progress.epoch,
        "total_epochs": progress.total_epochs,
    }
    eta = progress.eta_seconds
    return {
        "trainerStatus": {
            "progressPercentage": progress.percent,
            **({} if eta is None else {"estimatedRemainingSeconds": max(0, min(_LARGEST, eta))}),
            "metrics": [{"name": name, "value": str(value)} for name, value in _finite(values).items()],
            "lastUpdatedTime": datetime.fromtimestamp(progress.time or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    }


def from_rhoai(data: Mapping[str, Any]) -> Progress | None:
    """Return the progress from RHOAI's keys; ``None`` without a percentage.

    Values that are not finite numbers, and counts that are negative or beyond :data:`_LARGEST_COUNT`, are dropped.
    """
    percent = _number(data.get("progressPercentage"))
    if percent is None:
        return None
    metrics = data.get("trainMetrics")
    metrics = metrics if isinstance(metrics, Mapping) else {}
    note = data.get("note")
    return Progress(
        percent=max(0, min(100, int(percent))),
        step=_whole(data.get("currentStep")),
        total_steps=_whole(data.get("totalSteps")),
        epoch=_number(data.get("currentEpoch")),
        total_epochs=_whole(data.get("totalEpochs")),
        eta_seconds=_whole(data.get("estimatedRemainingSeconds")),
        loss=_number(metrics.get("loss")),
        learning_rate=_number(metrics.get("learning_rate")),
        tokens_per_second=_number(metrics.get("throughput")),
        time=_whole(data.get("time")),
        note=note[:120] if isinstance(note, str) else None,
    )


def line(progress: Progress) -> str:
    """Return the marked log line."""
    extra = {"time": progress.time, "note": progress.note}
    return MARK + json.dumps({**to_rhoai(progress), **{key: value for key, value in extra.items() if value is not None}})


def last(log: str) -> Progress | None:
    """Return the newest progress in the tail of a log; truncated lines are skipped."""
    return next(_parsed(reversed(log.splitlines())), None)


def _parsed(lines: Iterable[str]) -> Iterator[Progress]:
    for text in lines:
        start = text.find(MARK)
        if start < 0:
            continue
        try:
            data = strict_json.loads(text[start + len(MARK) :], _LINE_LIMIT)
        except strict_json.JsonError:
            continue
        progress = from_rhoai(data) if isinstance(data, dict) else None
        if progress is not None:
            yield progress


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {key: value for key, value in values.items() if value is not None and math.isfinite(value)}


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number <= _LARGEST_COUNT else None
