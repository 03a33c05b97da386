"""What the programs of training could have written to the workspace, and what the stages therefore do not reuse.

``isolation`` in ``status.resolved`` is ``mounts`` if training can write to its own folder only, and ``digests`` if digests in status
protect what other stages read (decision 36).
"""

from __future__ import annotations

import re

from finetune_operator.api.pods import HARMLESS_VARIABLES
from finetune_operator.api.stages import BASELINE, EVALUATION, REGISTRATION, TOKENIZATION, TRAINING

from .run import Run, StageStatus


def finds_no_result(run: Run, stage_status: StageStatus) -> bool:
    """Return whether a result of the stage for this round, if there is one in the workspace, is not one of its own earlier attempts.

    Pods of training may be restarted within an attempt. If they can write to the whole volume, no later stage uses an earlier result.
    """
    if stage_status.child_kind != "Job":
        return False
    exposed = _isolation(run) == "digests" and stage_status.name in (BASELINE.name, EVALUATION.name, REGISTRATION.name)
    return stage_status.attempt == 1 or exposed


def ignores_cached_results(run: Run, stage_status: StageStatus) -> bool:
    """Return whether results of other rounds and runs are not used: a program of training could have written them.

    On a volume that only this run uses, that would have to be its own training. The rows are rendered before the first training.
    """
    if _isolation(run) != "digests":
        return False
    is_shared = bool(run.resolved.storage.claim_name)
    if stage_status.name == TOKENIZATION.name:
        return is_shared or (run.round > 1 and runs_custom_code(run))
    return stage_status.name in (BASELINE.name, EVALUATION.name) and (is_shared or runs_custom_code(run))


def can_change_workspace(run: Run) -> bool:
    """Return whether the pods of training run code of users and can write to the whole workspace."""
    return _isolation(run) == "digests" and runs_custom_code(run)


def runs_custom_code(run: Run) -> bool:
    """Return whether the pods of training run code that neither this operator nor the runtime of the platform brings."""
    training, images = run.resolved.training, run.status["resolved"].get("images") or {}
    own_image = training.image is not None and training.image != images.get(TRAINING.image)
    unknown = any(not re.match(HARMLESS_VARIABLES, entry["name"]) for entry in training.env)
    return own_image or bool(training.volume_mounts) or unknown or run.resolved.model.trust_remote_code


def _isolation(run: Run) -> str | None:
    found: str | None = (run.status.get("resolved") or {}).get("isolation")
    return found
