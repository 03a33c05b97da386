"""Identity of the model and of the results that a stage uses: they must be those that earlier stages reported to the control plane.

Other pods can write to the workspace. So the seal of a model is compared with the digest of that report, its files with the seal, and
the file of a result with the digest of the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import DocumentError
from finetune_contract.progress import Progress
from finetune_contract.result import Result, parse_result

from .context import Context
from .fault import StageError
from .safe_files import RESULT_FILE_LIMIT, read_bounded
from .workspace import Seal, content_digest, file_sha256, files_of, first_difference

_MEGABYTE = 10**6
_MODELS = ("model", "training")
"""The stages that report the digest of a model."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_RERUN_FROM = {"tokenization": "evaluation", "baseline": "evaluation"}
"""The value of ``rerun.from`` for stages without one of their own: the one that repeats the stage and as little as possible."""


def reported_digest(context: Context, stage: str) -> str | None:
    """Return the digest of the model that ``stage`` reported, ``None`` if no control plane started this program.

    Raises:
        StageError: ``BadDocument``: the control plane has no result of that stage.
    """
    if context.reads is None:
        return None
    found = context.reads.get(stage)
    if found is None or found.outputs is None:
        raise StageError(
            reasons.BAD_DOCUMENT,
            f"FINETUNE_READS: it has no digest of stage {stage}; rerun from stage {_RERUN_FROM.get(stage, stage)}.",
        )
    return found.outputs


def require_reported(context: Context, folder: Path, seal: Seal, stage: str) -> None:
    """Check that a model or data is what ``stage`` reported, as far as its seal shows.

    Raises:
        StageError: ``ModelChanged``, ``ResultChanged``.
    """
    expected = reported_digest(context, stage)
    if expected not in (None, seal.digest):
        raise _changed(folder, f"its seal has digest {seal.digest[:12]}, and stage {stage} reported {expected:.12}", stage)


def require_content(context: Context, folder: Path, seal: Seal, stage: str) -> None:
    """Check every byte: the directory has exactly the files of its seal.

    Raises:
        StageError: ``ModelChanged``, ``ResultChanged``.
    """
    difference = first_difference(folder, seal)
    if difference is not None:
        raise _changed(folder, difference, stage)
    what = "model" if stage in _MODELS else "data"
    total = sum(file.size for file in seal.files.values())
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        note = f"verifying the {what}: {done / _MEGABYTE:,.0f} of {total / _MEGABYTE:,.0f} MB"
        context.report(Progress(percent=0, note=note))

    found = content_digest(folder, advance)
    if found != seal.digest:
        raise _changed(folder, f"its files have digest {found[:12]}, and its seal has {seal.digest[:12]}", stage)


def require_settings(model: Path, seal: Seal, stage: str) -> None:
    """Check every byte of a model's files except the weights: configuration, tokenizer, chat template, code.

    Raises:
        StageError: ``ModelChanged``.
    """
    difference = first_difference(model, seal)
    if difference is not None:
        raise _changed(model, difference, stage)
    found = {name: file_sha256(path) for name, path in files_of(model).items() if not name.endswith(_WEIGHTS)}
    expected = {name: file.sha256 for name, file in seal.files.items() if not name.endswith(_WEIGHTS)}
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if different:
        raise _changed(model, f"{different[0]} is not the file of its seal", stage)


def read_result(context: Context, path: Path, stage: str) -> Result:
    """Return the full result of ``stage`` from a file, which must be the one that the stage reported.

    Raises:
        StageError: ``ResultChanged``; ``BadDocument``: the file is missing or is not a result.
    """
    try:
        content = read_bounded(path, RESULT_FILE_LIMIT)
        _require_file(context, content, path, stage)
        return parse_result(json.loads(content))
    except (OSError, ValueError, DocumentError, RecursionError) as error:
        raise StageError(
            reasons.BAD_DOCUMENT,
            f"result of stage {stage}: it cannot be read ({error}); rerun from stage {_RERUN_FROM.get(stage, stage)}.",
        ) from error


def _require_file(context: Context, content: bytes, path: Path, stage: str) -> None:
    if context.reads is None:
        return
    expected = context.reads[stage].file if stage in context.reads else None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        reported = f"digest {expected[:12]}" if expected else "no digest of the file"
        raise StageError(
            reasons.RESULT_CHANGED,
            f"{path}: its digest is {found[:12]}, and stage {stage} reported {reported}; rerun from stage {_RERUN_FROM.get(stage, stage)}.",
        )


def _changed(folder: Path, what: str, stage: str) -> StageError:
    reason = reasons.MODEL_CHANGED if stage in _MODELS else reasons.RESULT_CHANGED
    return StageError(reason, f"{folder}: {what}; rerun from stage {stage}.")
