"""Counting bytes or rows, and telling the watching person how far a part of the stage's work is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from finetune_contract.progress import Progress
from finetune_stages.sdk import Context

MEGABYTE = 10**6


def report_note(context: Context, note: str) -> None:
    """Say what is being done now, if nothing can be counted."""
    context.report(Progress(percent=_reached(context), note=note))


@dataclass
class ProgressCounter:
    """Progress of one part of a stage.

    Attributes:
        note: what is being done.
        total: how many bytes (or rows) there are; 0 if it is unknown.
        low, high: the part's share of the stage, in percent.
        rows: rows are counted, not bytes.
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
        """So many more are done."""
        self.at(self.done + amount)

    def at(self, done: int) -> None:
        """So many are done in all."""
        self.done = min(done, self.total or done)  # a folder's size may count more than what was asked for
        share = self.done / self.total if self.total else 0.0
        self.context.report(
            Progress(
                # Parts may come twice, as for two sources: what was reported is never taken back.
                percent=max(_reached(self.context), int(self.low + share * (self.high - self.low))),
                step=self.done if self.rows else None,
                total_steps=self.total if self.rows and self.total else None,
                eta_seconds=self._eta(share),
                note=self.note if self.rows else f"{self.note}, {self._megabytes()}",
            )
        )

    def _eta(self, share: float) -> int | None:
        """Return seconds left of this part at the pace so far; ``None`` before there is a pace."""
        elapsed = time.monotonic() - self._started
        return int(elapsed * (1 / share - 1)) if share > 0 and elapsed >= 1 else None

    def _megabytes(self) -> str:
        done = f"{self.done / MEGABYTE:.0f}"
        return f"{done} of {self.total / MEGABYTE:.0f} MB" if self.total else f"{done} MB"


def _reached(context: Context) -> int:
    return context.last_progress.percent if context.last_progress else 0
