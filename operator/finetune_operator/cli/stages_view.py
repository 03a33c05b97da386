"""What the displays show of each stage: a word, a text, how long it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_operator.core.conditions import short_duration
from finetune_operator.core.run import Run, StageRecord
from finetune_operator.core.times import moment


@dataclass(frozen=True)
class StageLine:
    """One stage on a screen."""

    name: str
    state: str
    text: str
    seconds: float | None
    percent: int | None = None


def stage_lines(run: Run, now: datetime | None = None) -> Iterator[StageLine]:
    """The stages of a run, but for those that it does without and the workspace's own."""
    progress = run.status.get("progress") or {}
    for record in run.stages.values():
        if record.name == "workspace" and record.state == "Succeeded":
            continue
        if record.state == "Skipped" and not record.started_at:
            continue
        ours = progress if progress.get("stage") == record.name and record.state == "Running" else {}
        yield StageLine(record.name, record.state, _text(record, ours), _seconds(record, now), ours.get("percent"))


def _text(record: StageRecord, progress: Mapping[str, Any]) -> str:
    if progress:
        return progress_text(progress)
    if record.state == "Running":
        return record.message or ("" if record.reason == "Running" else str(record.reason or "").lower())
    if record.state == "Retrying":
        return f"{record.reason}: {record.message or ''} (attempt {record.attempt + 1} follows)"
    if record.state == "Failed":
        return f"{record.reason}: {record.message or ''}"
    prefix = "reused: " if record.reused else ""
    return prefix + (record.message or "")


def progress_text(progress: Mapping[str, Any]) -> str:
    """``step 47/75 · loss 3.21 · 1.2k tok/s · 18s left``."""
    parts = []
    if progress.get("totalSteps"):
        parts.append(f"step {progress.get('step', 0)}/{progress['totalSteps']}")
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("tokensPerSecond"):
        parts.append(f"{short_number(progress['tokensPerSecond'])} tok/s")
    if progress.get("etaSeconds") is not None:
        parts.append(f"{short_duration(progress['etaSeconds'])} left")
    if progress.get("note"):
        parts.append(str(progress["note"]))
    return " · ".join(parts)


def short_number(value: float) -> str:
    """``1234`` -> ``1.2k``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def _seconds(record: StageRecord, now: datetime | None) -> float | None:
    if not record.started_at:
        return None
    end = moment(record.finished_at) if record.finished_at else now or datetime.now(UTC)
    return max(0.0, (end - moment(record.started_at)).total_seconds())
