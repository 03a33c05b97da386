"""Texts about a run for people: the printer columns, rows that are left out, names and failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_contract.uris import is_local_path

from .paths import Json, lookup
from .plan_builder import PlanBuilder
from .quantities import counted
from .times import short_duration


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
    return uri.partition("@sha256:")[0].rstrip("/").rpartition("/")[2]


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
    "bad": ("is bad", "are bad"),
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
