"""Conditions, phase and printer columns of a run, from the status of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_contract.uris import is_local_path
from finetune_operator.api import reasons
from finetune_operator.api.stages import WORKSPACE
from finetune_operator.api.status import MESSAGE_LIMIT

from . import stages
from .paths import Json, lookup
from .plan_builder import PlanBuilder
from .quantities import counted
from .run import StageStatus, all_stopped


def conditions(builder: PlanBuilder) -> list[Json]:
    """Return every condition of the run. ``lastTransitionTime`` changes only with ``status``."""
    before = {condition["type"]: condition for condition in builder.run.status.get("conditions") or ()}
    found = []
    for type_, status, reason, message in _all(builder):
        old = before.get(type_)
        since = old["lastTransitionTime"] if old and old["status"] == status else builder.time
        found.append({
            "type": type_, "status": status, "reason": reason, "message": message[:MESSAGE_LIMIT], "lastTransitionTime": since,
            "observedGeneration": builder.run.generation,
        })  # fmt: skip
    return found


_Line = tuple[str, str, str, str]


def _all(builder: PlanBuilder) -> Iterator[_Line]:
    failure, ended = builder.get("failure"), bool(builder.get("finishedAt"))
    yield _succeeded(builder, failure, ended)
    yield ("Finished", _truth(ended), reasons.SETTLED if ended else reasons.RUNNING, "The run has ended." if ended else "")
    yield _reconciling(builder, failure, ended)  # before Stalled: kstatus takes the first of the two that is True
    yield _stalled(builder, failure, ended) or ("Stalled", "False", reasons.SETTLED if ended else reasons.RUNNING, "")
    held = builder.suspended and not ended
    yield ("Suspended", _truth(held), reasons.SUSPENDED if held else reasons.NOT_SUSPENDED, "")
    yield _workspace_ready(builder)
    for name, type_ in stages.GRAPH.conditions:
        yield _stage_condition(type_, builder.stages.get(name))


def _truth(value: bool) -> str:
    return "True" if value else "False"


def _succeeded(builder: PlanBuilder, failure: Mapping[str, Any] | None, ended: bool) -> _Line:
    if failure:
        reason = str(failure["reason"]) if ended else reasons.STOPPING
        return ("Succeeded", "False" if ended else "Unknown", reason, str(failure.get("message") or ""))
    if ended:
        return _rejected(builder, "Succeeded", "False") or ("Succeeded", "True", reasons.SUCCEEDED, "")
    return ("Succeeded", "Unknown", reasons.RUNNING if builder.stages else reasons.WAITING, "")


def _reconciling(builder: PlanBuilder, failure: Mapping[str, Any] | None, ended: bool) -> _Line:
    """Abnormal-true, as kstatus reads it: the run has not ended, and its next step needs no action by a user."""
    if ended:
        return ("Reconciling", "False", reasons.SETTLED, "")
    if failure:
        return ("Reconciling", "True", reasons.STOPPING, "")
    blocker = builder.blocker
    if blocker:
        return ("Reconciling", _truth(reasons.resumes_alone(blocker[0])), blocker[0].name, blocker[1])
    if builder.suspended:
        stopped = all_stopped(builder.stages.values())
        return ("Reconciling", _truth(not stopped), reasons.SUSPENDED if stopped else reasons.SUSPENDING, "")
    return ("Reconciling", "True", reasons.RUNNING, "")


def _stalled(builder: PlanBuilder, failure: Mapping[str, Any] | None, ended: bool) -> _Line | None:
    """Abnormal-true, as kstatus reads it: the run has failed, or waits for something outside."""
    if failure and ended:
        return ("Stalled", "True", str(failure["reason"]), str(failure.get("message") or ""))
    if ended:
        return _rejected(builder, "Stalled", "True")
    if failure or not builder.blocker:
        return None
    reason, message = builder.blocker
    return ("Stalled", "True", reason.name, f"{message.rstrip(' .')}. {reason.remedy}")


def _rejected(builder: PlanBuilder, type_: str, status: str) -> _Line | None:
    rejection = builder.model_rejection
    return (type_, status, str(rejection.reason), rejection.message or "") if rejection else None


def _workspace_ready(builder: PlanBuilder) -> _Line:
    """Whether the objects that every stage mounts exist, and the claim is bound."""
    for reason, message in builder.blockers:
        if reason in reasons.CLAIM_REASONS:
            return ("WorkspaceReady", "False", reason.name, message)
    stage_status = builder.stages.get(WORKSPACE.name)
    if stage_status is not None and stage_status.state == "Succeeded" and stage_status.reason == reasons.CLAIM_NOT_BOUND:
        return ("WorkspaceReady", "Unknown", reasons.CLAIM_NOT_BOUND, stage_status.message or "")
    return _stage_condition("WorkspaceReady", stage_status)


_BY_STATE = {"Succeeded": "True", "Failed": "False", "Skipped": "False"}


def _stage_condition(type_: str, stage_status: StageStatus | None) -> _Line:
    if stage_status is None:
        return (type_, "Unknown", reasons.WAITING, "")
    default = reasons.WAITING if stage_status.state == "Pending" else stage_status.state
    return (type_, _BY_STATE.get(stage_status.state, "Unknown"), stage_status.reason or default, stage_status.message or "")


def phase(builder: PlanBuilder) -> str:
    """Return the phase of the run: the latest one that a stage of this round has started. Nothing branches on it."""
    if builder.get("finishedAt"):
        return "Failed" if builder.get("failure") else "Rejected" if builder.model_rejection else "Succeeded"
    if builder.suspended:
        return "Suspended"
    for stage, word in stages.GRAPH.phases:
        stage_status = builder.stages.get(stage)
        if stage_status is not None and stage_status.started_at and stage_status.round == builder.run.round:
            return word
    return "Preparing" if builder.stages else "Pending"


def summary(builder: PlanBuilder) -> Json:
    """Return the strings of the printer columns, without empty ones."""
    progress, metrics, registry = (builder.get(field) or {} for field in ("progress", "metrics", "registry"))
    resolved = builder.get("resolved") or {}
    history = builder.get("history") or ()
    running = not builder.get("finishedAt")
    found = {
        "progress": f"{progress['percent']}%" if running and "percent" in progress else None,
        "eta": short_duration(progress["etaSeconds"]) if running and progress.get("etaSeconds") is not None else None,
        "rows": rows_summary(builder.get("rows") or {}),
        "loss": f"{history[-1]['loss']:.4g}" if history else None,
        "score": _score(metrics.get("evaluation") or {}, lookup(resolved, "spec") or {}),
        "model": registered_name(registry) if registry else short_name(str(lookup(resolved, "spec.model.uri") or "")),
        "algorithm": lookup(resolved, "spec.training.algorithm"),
        "message": _message(builder),
    }
    return {key: str(value)[:128] for key, value in found.items() if value}


def _score(scores: Mapping[str, float], spec: Mapping[str, Any]) -> str | None:
    """Return the first metric of the gate, else the one of the held-out rows, else the first metric of the first task."""
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
    """Return the short name of a base model: its id at the Hub, else the last part of its path."""
    if not is_local_path(uri) and ("://" not in uri or uri.startswith("hf://")):
        return uri.removeprefix("hf://")
    return uri.rstrip("/").rpartition("/")[2]


def failure_line(failure: Mapping[str, Any], *, reason: bool = True) -> str:
    """Return ``<stage>: <reason>: <message>`` of an entry of ``status.failure``, as far as it has them."""
    stage, message = str(failure.get("stage") or ""), str(failure.get("message") or "")
    parts = (stage, str(failure["reason"]) if reason else "", message.removeprefix(f"{stage}: "))
    return ": ".join(part for part in parts if part)


def _message(builder: PlanBuilder) -> str | None:
    failure = builder.get("failure")
    if failure:
        return failure_line(failure)
    rejection = builder.model_rejection
    if rejection and rejection.message:
        return f"{rejection.reason}: {rejection.message}"
    if builder.blocker:
        return f"{builder.blocker[0].name}: {builder.blocker[1]}"
    for stage_status in builder.stages.values():
        if stage_status.state == "Retrying":
            return f"{stage_status.name}: {stage_status.reason}, attempt {stage_status.attempt + 1} follows"
    running = [stage_status.name for stage_status in builder.stages.values() if stage_status.state == "Running"]
    return " and ".join(running) or _remarks(builder)


def _remarks(builder: PlanBuilder) -> str | None:
    """Return what users should know about a run without problems."""
    warnings = builder.get("warnings") or ()
    more = f" (and {counted(len(warnings) - 1, 'more warning')})" if len(warnings) > 1 else ""
    return f"{warnings[0]['stage']}: {warnings[0]['message']}{more}" if warnings else left_out(builder.get("rows") or {})


_LEFT_OUT = {
    "bad": ("is not a chat conversation", "are not chat conversations"),
    "rejected": ("is rejected by the chat template", "are rejected by the chat template"),
    "tooLong": ("is longer than training.maxSeqLen or the model's context", "are longer than training.maxSeqLen or the model's context"),
    "nothingToLearn": ("has no token to learn", "have no token to learn"),
}  # fmt: skip
"""Counts in ``status.rows`` of rows that are not trained on, and the reason, in singular and plural."""


def rows_summary(rows: Mapping[str, int]) -> str | None:
    """Return ``45`` or ``2 (28 left out)``; ``None`` before the rows are tokenized."""
    if "trained" not in rows:
        return None
    dropped = sum(rows.get(count, 0) for count in _LEFT_OUT)
    return f"{rows['trained']}" + (f" ({dropped} left out)" if dropped else "")


def left_out(rows: Mapping[str, int]) -> str | None:
    """Return a sentence about the rows that are not trained on, by cause; ``None`` if there are none."""
    counts = [(rows[count], cause) for count, cause in _LEFT_OUT.items() if rows.get(count)]
    causes = ", ".join(counted(number, *cause) for number, cause in counts)
    total = sum(number for number, _ in counts)
    return f"{counted(total, 'row is', 'rows are')} left out: {causes}" if counts else None


def short_duration(seconds: float) -> str:
    """Return a duration with at most two units: ``95`` -> ``1m35s``."""
    whole = int(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size}{unit}{rest}{smaller}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"
