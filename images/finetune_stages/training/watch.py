"""Observation of a training: the loss curve, progress, and the work after steps and epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback

from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint

from .outcome import require_number


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]
    """Trainer callback: OSFT's projection, the loss curve, progress, a checkpoint per epoch."""

    report: Callable[[Progress], None]
    tokens_after: NDArray[np.int64]
    epochs: int
    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[int], None] | None = None
    history: list[LossPoint] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the timer."""
        self.started = time.monotonic()

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
        self.history.append(LossPoint(state.global_step, round(logs["loss"], 6)))
        step, total, passed = state.global_step, len(self.tokens_after), time.monotonic() - self.started
        self.report(
            Progress(
                percent=min(99, 100 * step // total), step=step, total_steps=total, epoch=round(state.epoch, 3),
                total_epochs=self.epochs, eta_seconds=round(passed / step * (total - step)), loss=round(logs["loss"], 4),
                learning_rate=logs.get("learning_rate"), tokens_per_second=round(float(self.tokens_after[step - 1]) / passed, 1),
            )
        )  # fmt: skip

    def on_epoch_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Write a checkpoint."""
        if self.after_epoch:
            self.after_epoch(round(state.epoch))
