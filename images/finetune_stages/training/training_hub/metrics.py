"""Metrics that the backends append to a file after each optimizer step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .arguments import output

_FILES = {"sft": "training_params_and_metrics_global0.jsonl", "osft": "training_metrics_0.jsonl"}
"""File of the first process, by algorithm."""
_NAMES = {
    "sft": {"loss": "avg_loss", "samples": "samples_seen", "rate": "lr", "per_epoch": "num_epoch_steps"},
    "osft": {"loss": "loss", "samples": "total_samples_accumulated", "rate": "lr", "per_epoch": "steps_per_epoch"},
}


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: counted from 1.
        loss: mean over the step's labels, in nats; not finite if training has diverged.
        samples: rows since the start of the training, over all processes.
        learning_rate: after the step.
        per_epoch: number of steps of an epoch, if the backend states it.
    """

    number: int
    loss: float
    samples: int
    learning_rate: float | None
    per_epoch: int | None = None


@dataclass
class Metrics:
    """Reader of the metrics file of one training, which grows while it is read.

    The backends write it in a thread that they do not wait for: the last lines can be missing, and lines can be in another order.
    """

    algorithm: str
    folder: Path
    steps: list[Step] = field(default_factory=list)
    _read: int = 0

    def update(self) -> list[Step]:
        """Read what was appended, and return the new steps. An incomplete last line is left for the next call."""
        try:
            with (output(self.folder) / _FILES[self.algorithm]).open("rb") as file:
                file.seek(self._read)
                appended = file.read()
        except FileNotFoundError:
            return []
        complete = appended[: appended.rfind(b"\n") + 1]
        self._read += len(complete)
        found = list(self._parsed(complete))
        self.steps += found
        return found

    def _parsed(self, lines: bytes) -> Iterator[Step]:
        names = _NAMES[self.algorithm]
        for line in lines.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict) or not {"step", names["loss"], names["samples"]} <= record.keys():
                continue
            number, samples, per_epoch = (_count(record.get(name)) for name in ("step", names["samples"], names["per_epoch"]))
            if number and samples:
                yield Step(number, _number(record[names["loss"]]), samples, record.get(names["rate"]), per_epoch)


def _count(value: Any) -> int | None:
    """Return a positive count, ``None`` for any other value."""
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
