"""What displays show of each stage: state, text, duration and progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_operator.api.reasons import REASONS
from finetune_operator.api.stages import WORKSPACE
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.times import moment, short_duration

_LONG_LOSS, _LONG_NUMBER = 1e6, 1e15
"""From here on numbers are shown with an exponent: a program can report numbers of 300 digits."""


@dataclass(frozen=True)
class StageLine:
    """One displayed stage."""

    name: str
    state: str
    text: str
    seconds: float | None
    percent: int | None = None


def stage_lines(run: Run, now: datetime | None = None) -> Iterator[StageLine]:
    """Yield the stages of a run, except skipped ones and a ready workspace."""
    progress = run.status.get("progress") or {}
    for stage_status in run.stages.values():
        if stage_status.name == WORKSPACE.name and stage_status.state == "Succeeded":
            continue
        if stage_status.state == "Skipped" and not stage_status.started_at:
            continue
        own = progress if progress.get("stage") == stage_status.name and stage_status.state == "Running" else {}
        yield StageLine(
            stage_status.name, stage_status.state, _text(stage_status, own), _seconds(stage_status, now), own.get("percent")
        )


def _text(stage_status: StageStatus, progress: Mapping[str, Any]) -> str:
    if progress:
        return progress_text(progress)
    if stage_status.state == "Running":
        return stage_status.message or ("" if stage_status.reason == "Running" else str(stage_status.reason or "").lower())
    if stage_status.state == "Retrying":
        return f"{stage_status.reason}: {stage_status.message or ''} (attempt {stage_status.attempt + 1} follows)"
    if stage_status.state == "Failed":
        return f"{stage_status.reason}: {stage_status.message or ''}"
    prefix = "reused: " if stage_status.reused else ""
    return prefix + (stage_status.message or "")


def progress_text(progress: Mapping[str, Any]) -> str:
    """``step 47/75 · loss 3.21 · 1.2k tok/s · 18s left``."""
    parts = []
    if progress.get("totalSteps"):
        parts.append(f"step {progress.get('step', 0)}/{progress['totalSteps']}")
    if progress.get("loss") is not None:
        parts.append(f"loss {_loss(progress['loss'])}")
    if progress.get("tokensPerSecond"):
        parts.append(f"{short_number(progress['tokensPerSecond'])} tok/s")
    if progress.get("etaSeconds") is not None:
        parts.append(f"{short_duration(progress['etaSeconds'])} left")
    if progress.get("note"):
        parts.append(str(progress["note"]))
    return " · ".join(parts)


def _loss(value: float) -> str:
    return f"{value:.3f}" if abs(value) < _LONG_LOSS else f"{value:.3g}"


def short_number(value: float) -> str:
    """``1234`` -> ``1.2k``. Values beyond all units have an exponent."""
    if value >= _LONG_NUMBER:
        return f"{value:.1e}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def _seconds(stage_status: StageStatus, now: datetime | None) -> float | None:
    waits = stage_status.state == "Running" and stage_status.reason in REASONS  # a blocker keeps its pods from starting
    if not stage_status.started_at or waits:
        return None
    end = moment(stage_status.finished_at) if stage_status.finished_at else now or datetime.now(UTC)
    return max(0.0, (end - moment(stage_status.started_at)).total_seconds())
