"""Progress reports of a running stage: marked lines on standard output.

The keys are those that RHOAI's Trainer polls (``progressPercentage``, ``currentStep`` ...), so the same object is used in the termination
message and in the metrics endpoint that its dashboard reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MARK = "FINETUNE_PROGRESS "


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
    total_epochs: float | None = None
    eta_seconds: int | None = None
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    time: int | None = None
    note: str | None = None


def to_rhoai(progress: Progress) -> dict[str, Any]:
    """Return the progress with the RHOAI controller's keys and types: integers for its integer fields, no NaN."""
    metrics = {"loss": progress.loss, "learning_rate": progress.learning_rate, "throughput": progress.tokens_per_second}
    pairs = {
        "progressPercentage": progress.percent,
        "estimatedRemainingSeconds": progress.eta_seconds,
        "currentStep": progress.step,
        "totalSteps": progress.total_steps,
        "currentEpoch": progress.epoch,
        "totalEpochs": _integral(progress.total_epochs),
    }
    return {
        **{key: value for key, value in pairs.items() if value is not None},
        "trainMetrics": {key: value for key, value in metrics.items() if value is not None and math.isfinite(value)},
    }


def from_rhoai(data: Mapping[str, Any]) -> Progress | None:
    """Return the progress from RHOAI's keys. Values that are not finite numbers are dropped; ``None`` without a percentage."""
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
        total_epochs=_number(data.get("totalEpochs")),
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
            data = json.loads(text[start + len(MARK) :])
        except (ValueError, RecursionError):
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


def _integral(number: float | None) -> float | None:
    """Return an integral number as ``int``: RHOAI's controller rejects the whole object if ``totalEpochs`` is ``3.0``."""
    return int(number) if number is not None and float(number).is_integer() else number


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
