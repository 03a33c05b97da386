"""Progress of the parts of a stage's work, counted in bytes or rows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from finetune_contract.progress import Progress
from finetune_stages.sdk import Context

MEGABYTE = 10**6


def report_note(context: Context, note: str) -> None:
    """Report the current activity without a count."""
    context.report(Progress(percent=_reached(context), note=note))


@dataclass
class ProgressCounter:
    """Progress counter of one part of a stage.

    Attributes:
        note: the current activity.
        total: number of bytes or rows; 0 if it is unknown.
        low, high: range of the stage's progress that the part covers, in percent.
        rows: true if rows are counted, false for bytes.
    """

    context: Context
    note: str
    total: int = 0
    low: int = 0
    high: int = 99
    rows: bool = False
    done: int = 0
    _started: float = field(default_factory=time.monotonic)

    def __call__(self, amount: int) -> None:
        """Add ``amount`` to the count."""
        self.at(self.done + amount)

    def at(self, done: int) -> None:
        """Set the count to ``done``."""
        self.done = min(done, self.total or done)  # a folder's size may include other files
        share = self.done / self.total if self.total else 0.0
        self.context.report(
            Progress(
                # A part may run twice, as for two sources: the percentage never decreases.
                percent=max(_reached(self.context), int(self.low + share * (self.high - self.low))),
                step=self.done if self.rows else None,
                total_steps=self.total if self.rows and self.total else None,
                eta_seconds=self._eta(share),
                note=self.note if self.rows or 0 < self.total < MEGABYTE else f"{self.note}, {self._megabytes()}",
            )
        )

    def _eta(self, share: float) -> int | None:
        """Return the remaining seconds of this part at the current rate; ``None`` before a rate is known."""
        elapsed = time.monotonic() - self._started
        return int(elapsed * (1 / share - 1)) if share > 0 and elapsed >= 1 else None

    def _megabytes(self) -> str:
        done = f"{self.done / MEGABYTE:.0f}"
        return f"{done} of {self.total / MEGABYTE:.0f} MB" if self.total else f"{done} MB"


def _reached(context: Context) -> int:
    return context.last_progress.percent if context.last_progress else 0
