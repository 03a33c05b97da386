"""The command that applies a rejected edit of a run: a rerun if the run has ended, otherwise a clone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_contract.reasons import MODEL_CHANGED, RESULT_CHANGED, Cause
from finetune_operator.api.finetunerun import FROZEN_SECTIONS
from finetune_operator.api.reasons import REASONS
from finetune_operator.api.stages import RERUN_TARGETS
from finetune_operator.core import stages
from finetune_operator.core.remedies import first_to_rerun
from finetune_operator.core.resolve import CONTROL_FIELDS
from finetune_operator.core.run import Run
from finetune_operator.local.store.merge import merge_patch

from .documents import DocumentProblem, read_value

_NO_FIELD = (MODEL_CHANGED, RESULT_CHANGED)
"""Reasons for which no field of the run is wrong."""


def remedy_for_edit(run: Run, patch: Mapping[str, Any], flags: str) -> str:
    """Return what to do after the API server rejected an edit of a frozen section of ``spec``.

    Args:
        run: the run as it is.
        patch: the rejected merge patch of its ``spec``.
        flags: the options that select its backend in a command.
    """
    changed = [section for section in patch if section in FROZEN_SECTIONS]
    content = {section: value for section, value in patch.items() if section not in CONTROL_FIELDS}
    options = "".join(f" --set {shlex.quote(assignment)}" for assignment in assignments(run.spec, content))
    stage = first_stage(run, changed)
    if run.ended and stage:
        return f"apply the change with: finetune rerun {run.name}{flags} --from {stage}{options}"
    return f"start a new run with the change: finetune clone {run.name}{flags}{options}"


def first_stage(run: Run, sections: list[str]) -> str | None:
    """Return the last stage from which a rerun repeats a failed stage and may change ``sections``; ``None`` if there is none."""
    if not sections:
        return None
    allowed = [FROZEN_SECTIONS[section] for section in sections]
    common = [stage for stage in _repeatable(run) if all(stage in targets for targets in allowed)]
    return common[-1] if common else None


def stage_to_repeat(run: Run) -> str | None:
    """Return the stage from which a rerun repeats the failed stage of a run, as in the hint; ``None`` if no stage failed."""
    failure = run.status.get("failure") or {}
    if failure.get("stage") not in stages.GRAPH.definitions:
        return None
    reason = REASONS.get(failure.get("reason", ""))
    return first_to_rerun(reason, failure["stage"], failure.get("message", "")) if reason else _repeatable(run)[-1]


def command_to_repeat(run: Run, options: str) -> str | None:
    """Return the command that runs a failed run again, and how to change a field where a user must; ``None`` if no stage failed.

    ``options``: further options, with a space before each.
    """
    stage = stage_to_repeat(run)
    if stage is None:
        return None
    reason = REASONS.get((run.status.get("failure") or {}).get("reason", ""))
    changes = reason is not None and reason.cause in (Cause.USER, Cause.OUT_OF_MEMORY) and reason not in _NO_FIELD
    change = " (with --set FIELD=VALUE for each field that you change)" if changes else ""
    return f"run it again with: finetune rerun {run.name}{options} --from {stage}{change}"


def _repeatable(run: Run) -> tuple[str, ...]:
    """Return the stages from which a rerun repeats the failed stage, the first one first; all targets if no stage failed."""
    failed = stages.GRAPH.definitions.get(str((run.status.get("failure") or {}).get("stage")))
    if failed is None:
        return RERUN_TARGETS
    return RERUN_TARGETS[: RERUN_TARGETS.index(failed.rerun_target) + 1]


def assignments(spec: Mapping[str, Any], patch: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the ``PATH=VALUE`` of each field that ``patch`` changes in ``spec``."""
    for name, value in patch.items():
        path, old = f"{prefix}{name}", spec.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not any("." in key for key in value):
            yield from assignments(old, value, f"{path}.")
        else:
            yield f"{path}={_text(merge_patch(old, value))}"


def _text(value: Any) -> str:
    """Return a value in YAML: plain text if it is read as text, otherwise JSON."""
    if isinstance(value, str):
        try:
            if read_value(value) == value:
                return value
        except DocumentProblem:
            pass
    return json.dumps(value, ensure_ascii=False)
