"""Limits for the rows that are left out, and messages about them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from finetune_contract import reasons
from finetune_contract.documents import TokenizationInputs
from finetune_stages.chat.renderer import Rendered
from finetune_stages.sdk import Seal, StageError
from finetune_stages.sources.row_faults import FaultyRows, are, counted, may_be_left_out, sufficient_share

_KEYS_SHOWN = 4


@dataclass
class RowCounts:
    """Counts of the rows of one source.

    Attributes:
        total: all rows.
        rejected: rows that cannot be rendered.
        too_long, longest: number of rows with too many tokens, and the tokens of the longest.
        nothing: rows without a token to learn, or without an answer to score.
    """

    source: str
    total: int
    rejected: FaultyRows = field(default_factory=FaultyRows)
    too_long: int = 0
    longest: int = 0
    nothing: int = 0

    @property
    def left_out(self) -> int:
        """Number of rows that are not used."""
        return self.too_long + self.nothing + len(self.rejected)

    def not_measured(self) -> str | None:
        """Return the warning about rows that are not measured."""
        lost = self.nothing + len(self.rejected)
        if not lost:
            return None
        rejected = f"{len(self.rejected):,} of them rejected: {self.rejected.first}"
        why = rejected if self.rejected else "they have no answer that can be scored"
        return f"{self.source}: {counted(lost, self.total, 'not measured')} ({why})"


@dataclass
class Unused:
    """Counts of content without effect, over all rendered rows."""

    lost: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)

    def add(self, rendered: Rendered) -> None:
        """Count one row."""
        self.lost.update([rendered.lost] if rendered.lost else [])
        self.keys.update(rendered.unused)

    def warnings(self) -> list[str]:
        """Return one warning per kind of content that is not rendered, and one for all keys without effect."""
        lost = [
            f"{_rows(count, 'has')} {what}, which the chat template does not render" for what, count in self.lost.most_common()
        ]
        return lost + ([self._unread()] if self.keys else [])

    def _unread(self) -> str:
        if len(self.keys) == 1:
            ((key, count),) = self.keys.items()
            return f"{_rows(count, 'has')} {key}, which has no effect"
        listed = ", ".join(f"{key} ({_rows(count)})" for key, count in self.keys.most_common(_KEYS_SHOWN))
        more = len(self.keys) - _KEYS_SHOWN
        return f"the rows have keys that have no effect: {listed}{f' and {more} more' if more > 0 else ''}"


@dataclass(frozen=True)
class Limits:
    """The limits of one run.

    Attributes:
        positions: largest number of tokens that the model can read; ``None`` if it has no limit.
        bad: training rows that stage *dataset* left out as bad; fractional if bad rows were counted before the split.
    """

    inputs: TokenizationInputs
    positions: int | None
    bad: float = 0.0

    @property
    def longest(self) -> int:
        """Largest number of tokens of a row."""
        return min(self.inputs.max_seq_len, self.positions or self.inputs.max_seq_len)

    @property
    def _model_limits(self) -> bool:
        return self.positions is not None and self.positions <= self.inputs.max_seq_len

    def require_good(self, train: RowCounts, held_out: RowCounts) -> None:
        """Check that no row is rejected, or that rejected rows may be left out.

        Raises:
            StageError: ``BadRow``.
        """
        rejected, total = len(train.rejected) + len(held_out.rejected), train.total + held_out.total
        if not rejected or self.inputs.bad_rows != "Fail":
            return
        first = train if train.rejected else held_out
        further = f": {first.rejected.named()}" if len(first.rejected) > 1 else ""
        remedy = f"correct {'it' if rejected == 1 else 'them'}"
        if self._can_drop(train, held_out):
            remedy += f", or set dataset.badRows.policy to Drop{self._and_share(train)}"
        raise StageError(
            reasons.BAD_ROW,
            f"{first.source}: {first.rejected.first} ({counted(rejected, total, 'rejected')}{further}); {remedy}.",
        )

    def require_enough(self, train: RowCounts) -> None:
        """Check that enough training rows are left.

        Raises:
            StageError: ``NoTrainableRows``, ``TooManyRowsLeftOut``.
        """
        if train.left_out == train.total:
            raise StageError(
                reasons.NO_TRAINABLE_ROWS,
                f"{train.source}: none of {train.total:,} rows can be trained on ({self._kinds(train)}); {self._remedies(train)}.",
            )
        left, total = self._left_out(train)
        if not may_be_left_out(left, total, self.inputs.bad_rows_share):
            count = counted(math.ceil(left), math.ceil(total), "left out").replace(" rows ", " training rows ", 1)
            raise StageError(
                reasons.TOO_MANY_ROWS_LEFT_OUT,
                f"{train.source}: {count} ({self._kinds(train)}), more than"
                f" dataset.badRows.share {self.inputs.bad_rows_share:g} allows; {self._remedies(train)}, or raise dataset.badRows.share to"
                f" {sufficient_share(left, total):g}.",
            )

    def warning(self, train: RowCounts) -> str | None:
        """Return the warning about rows that are left out within the limit."""
        left = train.left_out
        return (
            f"{left:,} of {train.total:,} training rows {are(left)} left out: {self._kinds(train, here=True)}" if left else None
        )

    def _left_out(self, train: RowCounts) -> tuple[float, float]:
        """Return the number of training rows that are left out and the total, including those that stage *dataset* left out."""
        return train.left_out + self.bad, train.total + self.bad

    def _can_drop(self, train: RowCounts, held_out: RowCounts) -> bool:
        """Return whether enough rows are left if rejected rows are left out."""
        measured = not self.inputs.requires_holdout or held_out.left_out < held_out.total
        return measured and train.left_out < train.total

    def _and_share(self, train: RowCounts) -> str:
        """Return the share to set in addition, if policy Drop alone is not sufficient."""
        left, total = self._left_out(train)
        if may_be_left_out(left, total, self.inputs.bad_rows_share):
            return ""
        return f" and dataset.badRows.share to {sufficient_share(left, total):g}"

    def _kinds(self, train: RowCounts, *, here: bool = False) -> str:
        """Return why rows are left out; with ``here``, without those that stage *dataset* left out."""
        limit = "the model's limit" if self._model_limits else "training.maxSeqLen"
        kinds = (
            (train.too_long, "has", "have", f" more than {self.longest:,} tokens ({limit}), the longest {train.longest:,}"),
            (train.nothing, "has", "have", " nothing to learn"),
            (len(train.rejected), "is", "are", f" rejected ({train.rejected.first})"),
            (0 if here else math.ceil(self.bad), "was", "were", " bad in stage dataset"),
        )
        return ", ".join(f"{count:,} {one if count == 1 else several}{what}" for count, one, several, what in kinds if count)

    def _remedies(self, train: RowCounts) -> str:
        remedies = []
        if train.too_long:
            longest = min(train.longest, self.positions or train.longest)
            raising = f"raise training.maxSeqLen (to {longest:,} for all rows that the model can read)"
            remedies.append("shorten the rows" if self._model_limits else raising)
        if train.nothing or train.rejected or self.bad or not remedies:
            remedies.append("correct the rows" if not remedies else "correct the others")
        return " and ".join(remedies)


def bad_in_training(seal: Seal, train: int, held_out: int) -> float:
    """Return the number of training rows that stage *dataset* left out as bad.

    If the held-out rows are split from the same source, this is a proportional share: bad rows are left out before the split.
    """
    dropped = float(seal.note["droppedTrainRows"])
    return dropped * train / (train + held_out) if seal.note["split"] and train + held_out else dropped


def _rows(count: int, verb: str = "") -> str:
    """Return "1 row has" or "2 rows have" for ``verb`` = ``has``."""
    noun = "row" if count == 1 else "rows"
    return f"{count:,} {noun}" + (f" {'has' if count == 1 else 'have'}" if verb else "")
