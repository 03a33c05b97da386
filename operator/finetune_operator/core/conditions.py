"""Conditions, phase and the strings of the printer columns: what a run's records amount to, in the words of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_operator.api import reasons
from finetune_operator.api.status import MESSAGE_LIMIT
from finetune_operator.api.uris import is_local_path

from .draft import Draft
from .paths import Json, lookup
from .quantities import counted
from .run import StageRecord, all_stopped
from .stages import GATE, STAGES, WORKSPACE


def conditions(draft: Draft) -> list[Json]:
    """Every condition of the run. ``lastTransitionTime`` moves only when ``status`` does."""
    before = {condition["type"]: condition for condition in draft.run.status.get("conditions") or ()}
    found = []
    for type_, status, reason, message in _all(draft):
        old = before.get(type_)
        since = old["lastTransitionTime"] if old and old["status"] == status else draft.time
        found.append({
            "type": type_, "status": status, "reason": reason, "message": message[:MESSAGE_LIMIT], "lastTransitionTime": since,
            "observedGeneration": draft.run.generation,
        })  # fmt: skip
    return found


_Line = tuple[str, str, str, str]


def _all(draft: Draft) -> Iterator[_Line]:
    failure, ended = draft.get("failure"), bool(draft.get("finishedAt"))
    yield _succeeded(draft, failure, ended)
    yield ("Finished", _truth(ended), reasons.SETTLED if ended else reasons.RUNNING, "The run has ended." if ended else "")
    yield _reconciling(draft, failure, ended)  # before Stalled: kstatus takes the first of the two that is True
    yield _stalled(draft, failure, ended) or ("Stalled", "False", reasons.SETTLED if ended else reasons.RUNNING, "")
    held = draft.suspended and not ended
    yield ("Suspended", _truth(held), reasons.SUSPENDED if held else reasons.NOT_SUSPENDED, "")
    yield _workspace_ready(draft)
    for stage in STAGES:
        if stage.condition:
            yield _stage_condition(stage.condition, draft.records.get(stage.name))


def _truth(value: bool) -> str:
    return "True" if value else "False"


def _succeeded(draft: Draft, failure: Mapping[str, Any] | None, ended: bool) -> _Line:
    if failure:
        reason = str(failure["reason"]) if ended else reasons.STOPPING
        return ("Succeeded", "False" if ended else "Unknown", reason, str(failure.get("message") or ""))
    if ended:
        return _rejected(draft, "Succeeded", "False") or ("Succeeded", "True", reasons.SUCCEEDED, "")
    return ("Succeeded", "Unknown", reasons.RUNNING if draft.records else reasons.WAITING, "")


def _reconciling(draft: Draft, failure: Mapping[str, Any] | None, ended: bool) -> _Line:
    """Abnormal-true, as kstatus reads it: the run has not reached its end, and needs nobody for its next step."""
    if ended:
        return ("Reconciling", "False", reasons.SETTLED, "")
    if failure:
        return ("Reconciling", "True", reasons.STOPPING, "")
    blocker = draft.blocker
    if blocker:
        return ("Reconciling", _truth(reasons.resumes_alone(blocker[0])), blocker[0].name, blocker[1])
    if draft.suspended:
        stopped = all_stopped(draft.records.values())
        return ("Reconciling", _truth(not stopped), reasons.SUSPENDED if stopped else reasons.SUSPENDING, "")
    return ("Reconciling", "True", reasons.RUNNING, "")


def _stalled(draft: Draft, failure: Mapping[str, Any] | None, ended: bool) -> _Line | None:
    """Abnormal-true, as kstatus reads it: failed for good, or waiting for something outside."""
    if failure and ended:
        return ("Stalled", "True", str(failure["reason"]), str(failure.get("message") or ""))
    if ended:
        return _rejected(draft, "Stalled", "True")
    if failure or not draft.blocker:
        return None
    reason, message = draft.blocker
    return ("Stalled", "True", reason.name, f"{message.rstrip(' .')}. {reason.remedy}")


def _rejected(draft: Draft, type_: str, status: str) -> _Line | None:
    if not draft.rejected:
        return None
    return (type_, status, reasons.GATE_REJECTED, draft.records[GATE].message or "")


def _workspace_ready(draft: Draft) -> _Line:
    """Whether the objects that every stage mounts are there, and the claim is bound."""
    for reason, message in draft.obstacles:
        if reason in reasons.CLAIM_REASONS:
            return ("WorkspaceReady", "False", reason.name, message)
    record = draft.records.get(WORKSPACE)
    if record is not None and record.state == "Succeeded" and record.reason == reasons.CLAIM_NOT_BOUND:
        return ("WorkspaceReady", "Unknown", reasons.CLAIM_NOT_BOUND, record.message or "")
    return _stage_condition("WorkspaceReady", record)


_BY_STATE = {"Succeeded": "True", "Failed": "False", "Skipped": "False"}


def _stage_condition(type_: str, record: StageRecord | None) -> _Line:
    if record is None:
        return (type_, "Unknown", reasons.WAITING, "")
    default = reasons.WAITING if record.state == "Pending" else record.state
    return (type_, _BY_STATE.get(record.state, "Unknown"), record.reason or default, record.message or "")


_PHASES = (("registration", "Registering"), ("evaluation", "Evaluating"), ("training", "Training"))


def phase(draft: Draft) -> str:
    """Return one word for people: the latest of the phases that a stage of this round has begun. Nothing branches on it."""
    if draft.get("finishedAt"):
        return "Failed" if draft.get("failure") else "Rejected" if draft.rejected else "Succeeded"
    if draft.suspended:
        return "Suspended"
    for stage, word in _PHASES:
        record = draft.records.get(stage)
        if record is not None and record.started_at and record.round == draft.run.round:
            return word
    return "Preparing" if draft.records else "Pending"


def summary(draft: Draft) -> Json:
    """The strings of the printer columns; empty ones are left out."""
    progress, metrics, registry = (draft.get(field) or {} for field in ("progress", "metrics", "registry"))
    resolved = draft.get("resolved") or {}
    history = draft.get("history") or ()
    running = not draft.get("finishedAt")
    found = {
        "progress": f"{progress['percent']}%" if running and "percent" in progress else None,
        "eta": short_duration(progress["etaSeconds"]) if running and progress.get("etaSeconds") is not None else None,
        "rows": rows_summary(draft.get("rows") or {}),
        "loss": f"{history[-1]['loss']:.4g}" if history else None,
        "score": _score(metrics.get("evaluation") or {}, lookup(resolved, "spec") or {}),
        "model": registered_name(registry) if registry else short_name(str(lookup(resolved, "spec.model.uri") or "")),
        "algorithm": lookup(resolved, "spec.training.algorithm"),
        "message": _message(draft),
    }
    return {key: str(value)[:128] for key, value in found.items() if value}


def _score(scores: Mapping[str, float], spec: Mapping[str, Any]) -> str | None:
    """The first metric of the gate, else the held-out rows', else the first task's first."""
    required = lookup(spec, "gate.requirements") or ()
    for name in (*(one["metric"] for one in required[:1]), "holdout.bits_per_byte"):
        if name in scores:
            return f"{scores[name]:.4g}"
    for task in lookup(spec, "evaluation.tasks") or ():
        for key in sorted(scores):
            if key.startswith(f"{task}.") and "_stderr" not in key:
                return f"{scores[key]:.4g}"
    return None


def registered_name(registry: Mapping[str, Any]) -> str:
    """Return ``name:version`` of an entry of ``status.registry``, as far as it has them."""
    return ":".join(str(registry[key]) for key in ("name", "version") if registry.get(key))


def short_name(uri: str) -> str:
    """Return the name by which people know a base model: its id at the Hub, else the last part of its path."""
    if not is_local_path(uri) and ("://" not in uri or uri.startswith("hf://")):
        return uri.removeprefix("hf://")
    return uri.rstrip("/").rpartition("/")[2]


def failure_line(failure: Mapping[str, Any], *, reason: bool = True) -> str:
    """Return ``<stage>: <reason>: <message>`` of an entry of ``status.failure``, as far as it has them."""
    stage, message = str(failure.get("stage") or ""), str(failure.get("message") or "")
    parts = (stage, str(failure["reason"]) if reason else "", message.removeprefix(f"{stage}: "))
    return ": ".join(part for part in parts if part)


def _message(draft: Draft) -> str | None:
    failure = draft.get("failure")
    if failure:
        return failure_line(failure)
    if draft.rejected and draft.records[GATE].message:
        return f"{reasons.GATE_REJECTED}: {draft.records[GATE].message}"
    if draft.blocker:
        return f"{draft.blocker[0].name}: {draft.blocker[1]}"
    for record in draft.records.values():
        if record.state == "Retrying":
            return f"{record.name}: {record.reason}, attempt {record.attempt + 1} follows"
    running = [record.name for record in draft.records.values() if record.state == "Running"]
    return " and ".join(running) or _remarks(draft)


def _remarks(draft: Draft) -> str | None:
    """What the user must know of a run that goes well."""
    warnings = draft.get("warnings") or ()
    more = f" (and {counted(len(warnings) - 1, 'more warning')})" if len(warnings) > 1 else ""
    return f"{warnings[0]['stage']}: {warnings[0]['message']}{more}" if warnings else left_out(draft.get("rows") or {})


_LEFT_OUT = {
    "bad": ("is not a chat conversation", "are not chat conversations"),
    "rejected": ("is rejected by the chat template", "are rejected by the chat template"),
    "tooLong": ("is longer than training.maxSeqLen or the model's context", "are longer than training.maxSeqLen or the model's context"),
    "nothingToLearn": ("has no token to learn", "have no token to learn"),
}  # fmt: skip
"""The rows of ``status.rows`` that are not trained on, and why: of one row, and of several."""


def rows_summary(rows: Mapping[str, int]) -> str | None:
    """``45``, or ``2 (28 left out)``; nothing before the rows are tokenized."""
    if "trained" not in rows:
        return None
    dropped = sum(rows.get(count, 0) for count in _LEFT_OUT)
    return f"{rows['trained']}" + (f" ({dropped} left out)" if dropped else "")


def left_out(rows: Mapping[str, int]) -> str | None:
    """The rows that are not trained on, by cause, in a sentence; nothing where all are."""
    counts = [(rows[count], cause) for count, cause in _LEFT_OUT.items() if rows.get(count)]
    causes = ", ".join(counted(number, *cause) for number, cause in counts)
    total = sum(number for number, _ in counts)
    return f"{counted(total, 'row is', 'rows are')} left out: {causes}" if counts else None


def short_duration(seconds: float) -> str:
    """``95`` -> ``1m35s``; at most two units."""
    whole = int(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size}{unit}{rest}{smaller}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"
