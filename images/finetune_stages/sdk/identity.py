"""Identity of the model that a stage uses: it must be the one that an earlier stage reported to the control plane.

Other pods can write to the workspace. So a seal is compared with the digest of that report, and the files with the seal.
"""

from __future__ import annotations

from pathlib import Path

from finetune_contract import reasons
from finetune_contract.progress import Progress

from .context import Context
from .fault import StageError
from .workspace import Seal, content_digest

_MEGABYTE = 10**6


def reported_digest(context: Context, stage: str) -> str | None:
    """Return the digest of the model that ``stage`` reported, ``None`` if no control plane started this program.

    Raises:
        StageError: ``BadDocument``: the control plane has no result of that stage.
    """
    if context.reads is None:
        return None
    found = context.reads.get(stage)
    if found is None or found.outputs is None:
        raise StageError(reasons.BAD_DOCUMENT, f"FINETUNE_READS: it has no digest of stage {stage}; rerun from stage {stage}.")
    return found.outputs


def require_reported(context: Context, model: Path, seal: Seal, stage: str) -> None:
    """Check that a model is the one that ``stage`` reported, as far as its seal shows.

    Raises:
        StageError: ``ModelChanged``.
    """
    expected = reported_digest(context, stage)
    if expected not in (None, seal.digest):
        raise _changed(model, f"its seal has digest {seal.digest[:12]}, and stage {stage} reported {expected:.12}", stage)


def require_content(context: Context, model: Path, seal: Seal, stage: str) -> None:
    """Check every byte: the directory has exactly the files of its seal.

    Raises:
        StageError: ``ModelChanged``.
    """
    total = sum(file.size for file in seal.files.values())
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        note = f"verifying the model: {done / _MEGABYTE:,.0f} of {total / _MEGABYTE:,.0f} MB"
        context.report(Progress(percent=0, note=note))

    found = content_digest(model, advance)
    if found != seal.digest:
        raise _changed(model, f"its files have digest {found[:12]}, and its seal has {seal.digest[:12]}", stage)


def _changed(model: Path, what: str, stage: str) -> StageError:
    return StageError(reasons.MODEL_CHANGED, f"{model}: {what}; rerun from stage {stage}.")
