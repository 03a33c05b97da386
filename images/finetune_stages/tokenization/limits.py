"""How many rows may be left out, and what is said of those that are."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from finetune_contract import reasons
from finetune_contract.documents import TokenizationInputs
from finetune_stages.chat.renderer import Rendered
from finetune_stages.kit import Seal, StageError

_SHOWN = 3


@dataclass
class Seen:
    """What was found in some rows.

    Attributes:
        total: rows that there are.
        rejected: rows that cannot be rendered; ``labels`` name the first of them, and ``example`` says what is wrong with the first.
        too_long, longest: rows with too many tokens, and the tokens of the longest of them.
        nothing: rows without a token to learn, or without an answer to score.
    """

    source: str
    total: int
    rejected: int = 0
    labels: list[str] = field(default_factory=list)
    example: str = ""
    too_long: int = 0
    longest: int = 0
    nothing: int = 0

    def reject(self, label: str, why: str) -> None:
        """Count a row that cannot be rendered."""
        self.rejected += 1
        self.example = self.example or f"{label} {why}"
        if len(self.labels) < _SHOWN:
            self.labels.append(label)


@dataclass
class Unused:
    """What rows contain that has no effect, over all rows that are rendered."""

    lost: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)

    def add(self, rendered: Rendered) -> None:
        """Count one row."""
        self.lost.update([rendered.lost] if rendered.lost else [])
        self.keys.update(rendered.unused)

    def warnings(self) -> list[str]:
        """A sentence for each kind."""
        lost = [(count, f"{what}, which the chat template does not render") for what, count in self.lost.most_common()]
        unread = [(count, f"{key}, which has no effect") for key, count in self.keys.most_common()]
        return [f"{count:,} {'row has' if count == 1 else 'rows have'} {what}" for count, what in (*lost, *unread)]


@dataclass(frozen=True)
class Limits:
    """The limits of one run.

    Attributes:
        positions: tokens that the model can read at all; ``None`` where it has no such limit.
        bad: training rows that stage *dataset* left out as bad (a share of a row where bad rows were counted before the split).
    """

    inputs: TokenizationInputs
    positions: int | None
    bad: float = 0.0

    @property
    def longest(self) -> int:
        """Tokens that a row may have."""
        return min(self.inputs.max_seq_len, self.positions or self.inputs.max_seq_len)

    @property
    def _model_limits(self) -> bool:
        return self.positions is not None and self.positions <= self.inputs.max_seq_len

    def require_good(self, *groups: Seen) -> None:
        """Make sure that no row is rejected, or that rejected rows may be left out.

        Raises:
            StageError: ``BadRow``.
        """
        rejected, total = sum(seen.rejected for seen in groups), sum(seen.total for seen in groups)
        if not rejected or self.inputs.bad_rows != "Fail":
            return
        first = next(seen for seen in groups if seen.rejected)
        counted = f"{rejected:,} of {total:,} rows {_are(rejected)} rejected"
        raise StageError(
            reasons.BAD_ROW,
            f"{first.source}: {first.example} ({counted}{_further(first)}); correct {'it' if rejected == 1 else 'them'}, or set"
            f" dataset.badRows.policy to Drop{self._and_share(rejected, total)}.",
        )

    def require_enough(self, seen: Seen, kept: int) -> None:
        """Make sure that enough rows are left to train on.

        Raises:
            StageError: ``NoTrainableRows``, ``TooManyRowsLeftOut``.
        """
        if not kept:
            raise StageError(
                reasons.NO_TRAINABLE_ROWS,
                f"{seen.source}: none of {seen.total:,} rows can be trained on ({self._kinds(seen)}); {self._remedies(seen)}.",
            )
        left, total = seen.too_long + seen.nothing + seen.rejected + self.bad, seen.total + self.bad
        if left > self.inputs.bad_rows_share * total + 1e-9:
            raise StageError(
                reasons.TOO_MANY_ROWS_LEFT_OUT,
                f"{seen.source}: {math.ceil(left):,} of {math.ceil(total):,} training rows {_are(math.ceil(left))} left out ({self._kinds(seen)}), more than"
                f" dataset.badRows.share {self.inputs.bad_rows_share:g} allows; {self._remedies(seen)}, or raise dataset.badRows.share to"
                f" {_share(left, total)}.",
            )

    def warning(self, seen: Seen) -> str | None:
        """What is said of rows that are left out within the limit."""
        left = seen.too_long + seen.nothing + seen.rejected
        return f"{left:,} of {seen.total:,} training rows {_are(left)} left out: {self._kinds(seen)}" if left else None

    def _and_share(self, rejected: int, total: int) -> str:
        """What else to set where dropping alone would not do."""
        return f" and dataset.badRows.share to {_share(rejected, total)}" if rejected > self.inputs.bad_rows_share * total else ""

    def _kinds(self, seen: Seen) -> str:
        by = "the model's positions" if self._model_limits else "training.maxSeqLen"
        kinds = (
            (seen.too_long, "has", "have", f" more than {self.longest:,} tokens ({by}), the longest {seen.longest:,}"),
            (seen.nothing, "has", "have", " nothing to learn"),
            (seen.rejected, "is", "are", f" rejected ({seen.example})"),
            (math.ceil(self.bad), "was", "were", " bad in stage dataset"),
        )
        return ", ".join(f"{count:,} {one if count == 1 else several}{what}" for count, one, several, what in kinds if count)

    def _remedies(self, seen: Seen) -> str:
        remedies = []
        if seen.too_long:
            wanted = min(seen.longest, self.positions or seen.longest)
            raising = f"raise training.maxSeqLen (to {wanted:,} for all that the model can read)"
            remedies.append("shorten the rows" if self._model_limits else raising)
        if seen.nothing or seen.rejected or self.bad or not remedies:
            remedies.append("correct the rows" if not remedies else "correct the others")
        return " and ".join(remedies)


def bad_in_training(seal: Seal, train: int, held_out: int) -> float:
    """Rows that stage *dataset* left out as bad, as far as they would have been trained on."""
    dropped = float(seal.note.get("droppedRows", 0))
    split = seal.note.get("source") == seal.note.get("evalSource")
    return dropped * train / (train + held_out) if split and train + held_out else dropped


def _further(seen: Seen) -> str:
    """The labels of the rejected rows, where there are several."""
    return f": {', '.join(seen.labels)}{', ...' if seen.rejected > len(seen.labels) else ''}" if seen.rejected > 1 else ""


def _share(left: float, total: float) -> float:
    """A share that allows so many of so many, in whole percent."""
    return math.ceil(left / total * 100 - 1e-9) / 100


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
