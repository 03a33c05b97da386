"""Observation of a training: the loss curve, progress, and the work after steps and epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback

from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint

from .outcome import require_number
from .step_progress import StepProgress


@dataclass
class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """Trainer callback: OSFT's projection, the loss curve, progress, a checkpoint per epoch."""

    report: Callable[[Progress], None]
    tokens_after: NDArray[np.int64]
    epochs: int
    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[int], None] | None = None
    history: list[LossPoint] = field(default_factory=list)
    progress: StepProgress = field(init=False)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the timer."""
        self.progress = StepProgress(len(self.tokens_after), self.epochs)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Run the algorithm's work after an optimizer step."""
        if self.after_step:
            self.after_step()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Record the mean loss over all processes after each step.

        Raises:
            StageError: ``LossNotANumber``: the gradients overflowed.
        """
        if "loss" not in logs:  # the summary at the end
            return
        require_number(logs.get("grad_norm", 0.0), "gradient", state.global_step)
        step, loss, tokens = state.global_step, logs["loss"], int(self.tokens_after[state.global_step - 1])
        self.history.append(LossPoint(step, round(loss, 6)))
        self.report(self.progress.after(step, state.epoch, loss, learning_rate=logs.get("learning_rate"), tokens=tokens))

    def on_epoch_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Write a checkpoint."""
        if self.after_epoch:
            self.after_epoch(round(state.epoch))
