"""Metrics, message and warnings of a training."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_contract.documents import TrainingInputs
from finetune_contract.result import LossPoint

HISTORY = 2000
"""Points of the loss curve in the full result."""


def short_of_warm_up(warm_up: int, steps: int) -> tuple[str, ...]:
    """Return the warning about a training that ends before the warm-up."""
    if warm_up < steps:
        return ()
    return (
        f"training.warmupSteps: it is {warm_up:,} and the training has {steps:,} steps, so training.learningRate is never reached; lower it.",
    )


def incomplete(history: Sequence[LossPoint], steps: int) -> tuple[str, ...]:
    """Return the warning about a loss curve without the last steps."""
    last = history[-1].step
    if last == steps:
        return ()
    return (f"training: the backend's metrics end with step {last:,} of {steps:,}, and final_loss is the loss of that step.",)


def curve(history: Sequence[LossPoint]) -> dict[str, float]:
    """Return the metrics of a loss curve."""
    losses = [point.loss for point in history]
    tenth = losses[-max(1, len(losses) // 10) :]
    return {
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "min_loss": min(losses),
        "last_tenth_loss": sum(tenth) / len(tenth),
    }


def sentence(inputs: TrainingInputs, history: Sequence[LossPoint], steps: int, seconds: float, *, rows: int, dropped: int) -> str:
    """Return the message of a finished training."""
    also = f"; {dropped:,} rows were left out in stage tokenization" if dropped else ""
    return (
        f"{inputs.algorithm}: {inputs.epochs} x {rows:,} rows in {steps:,} steps and {seconds:.0f} s,"
        f" loss {history[0].loss:.3f} to {history[-1].loss:.3f}{also}"
    )
