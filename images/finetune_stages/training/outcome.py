"""Checks of what a training has computed, whatever the engine is: finite numbers, and all samples."""

from __future__ import annotations

import math

from finetune_contract import reasons
from finetune_contract.documents import TrainingInputs
from finetune_stages.sdk import StageError


def require_number(value: float, name: str, step: int) -> None:
    """Check that a loss or a gradient is finite.

    Raises:
        StageError: ``LossNotANumber``.
    """
    if not math.isfinite(value):
        raise StageError(
            reasons.NOT_A_NUMBER,
            f"training: the {name} became {value} in step {step}; lower training.learningRate, or set training.warmupSteps.",
        )


def require_samples(seen: int, inputs: TrainingInputs, rows: int) -> None:
    """Check that every row was processed in every epoch.

    Raises:
        StageError: ``TrainingIncomplete``.
    """
    expected = inputs.epochs * rows
    if seen != expected:
        raise StageError(
            reasons.TRAINING_INCOMPLETE,
            f"training: {seen} of {expected} samples were processed ({inputs.epochs} x {rows} rows); read the log of stage training.",
        )
