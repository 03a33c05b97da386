"""Progress of a training by its optimizer steps, for both engines."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from finetune_contract.progress import Progress


@dataclass
class StepProgress:
    """Builder of progress reports.

    Attributes:
        total: optimizer steps of the training.
        epochs: epochs of the training.
        started: time of the first step's start, of ``time.monotonic()``.
    """

    total: int
    epochs: int
    started: float = field(default_factory=time.monotonic)

    def after(
        self, step: int, epoch: float, loss: float, *, learning_rate: float | None = None, tokens: int | None = None
    ) -> Progress:
        """Return the report after an optimizer step.

        Args:
            step: counted from 1.
            epoch: passes over the rows so far, with a fraction.
            loss: of the step.
            learning_rate: after the step.
            tokens: trained so far; ``None`` if unknown.
        """
        passed = time.monotonic() - self.started
        return Progress(
            percent=min(99, 100 * step // self.total), step=step, total_steps=self.total, epoch=round(epoch, 3),
            total_epochs=self.epochs, eta_seconds=round(passed / step * max(0, self.total - step)), loss=round(loss, 4),
            learning_rate=learning_rate, tokens_per_second=None if tokens is None else round(tokens / passed, 1),
        )  # fmt: skip
