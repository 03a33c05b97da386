"""Progress of the stage that people wait for, out of the ends of logs."""

from __future__ import annotations

from datetime import UTC, datetime

from finetune_contract.progress import Progress, last
from finetune_contract.result import HISTORY_LIMIT, LossPoint, thin

from .draft import Draft
from .paths import Json
from .times import stamp

_IMPORTANCE = ("training", "evaluation", "baseline", "model", "dataset", "registration")


def watch_progress(draft: Draft) -> None:
    """Put the newest report of the most important running stage into status; clear it where nothing runs."""
    for name in _IMPORTANCE:
        record = draft.records.get(name)
        if record is None or record.state != "Running":
            continue
        for pod in draft.observed.pods.get(name, ()):
            report = last(draft.observed.logs.get(pod.name, "")) if pod.rank == 0 else None
            if report is not None:
                _tell(draft, name, report)
                return
        if (draft.run.status.get("progress") or {}).get("stage") == name:
            return
    if not any(record.state == "Running" for record in draft.records.values()):
        draft.fields["progress"] = None


def _tell(draft: Draft, stage: str, report: Progress) -> None:
    found: Json = {
        "stage": stage, "percent": report.percent, "step": report.step, "totalSteps": report.total_steps, "epoch": report.epoch,
        "etaSeconds": report.eta_seconds, "loss": report.loss, "tokensPerSecond": report.tokens_per_second, "note": report.note,
        "lastReport": draft.time if report.time is None else _stamp_of(report.time),
    }  # fmt: skip
    draft.fields["progress"] = {key: value for key, value in found.items() if value is not None}
    if stage == "training" and report.loss is not None and report.step is not None:
        _extend_history(draft, LossPoint(report.step, report.loss))


def _stamp_of(seconds: int) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))


def _extend_history(draft: Draft, point: LossPoint) -> None:
    known = [LossPoint(entry["step"], entry["loss"]) for entry in draft.run.status.get("history") or ()]
    if known and known[-1].step >= point.step:
        known = [old for old in known if old.step < point.step]  # a new attempt begins again
    points = thin([*known, point], HISTORY_LIMIT)
    draft.fields["history"] = [{"step": entry.step, "loss": entry.loss} for entry in points]
