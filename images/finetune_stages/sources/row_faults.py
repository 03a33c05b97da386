"""Rows with a fault: count, description of the first ones, and the share of rows that may be left out."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

SHOWN = 3
"""Largest number of rows that a message describes."""
LOGGED = 1000
"""Largest number of rows that the log describes."""
_TOLERANCE = 1e-9
"""Relative error of a product of a share and a number of rows, with a margin: 0.29 * 100 is a little less than 29."""


@dataclass
class FaultyRows:
    """Rows with a fault.

    Attributes:
        positions: positions of all of them.
        labels: names of the first :data:`SHOWN` rows in messages.
        examples: these names, each with the row's fault.
        logged: whether rows are printed.
    """

    positions: array[int] = field(default_factory=lambda: array("q"))
    labels: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    logged: bool = True

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, position: int, label: str, problem: str) -> None:
        """Count a row; ``problem`` completes a sentence that begins with ``label``."""
        self.positions.append(position)
        if self.logged:
            log_row(len(self), label, problem)
        if len(self.labels) < SHOWN:
            self.labels.append(label)
            self.examples.append(f"{label} {problem}".strip())

    @property
    def first(self) -> str:
        """The first row with its fault; empty if there is none."""
        return self.examples[0] if self.examples else ""

    def described(self, separator: str = "; ") -> str:
        """Return the first rows, each with its fault."""
        return self._listed(self.examples, separator)

    def named(self) -> str:
        """Return the labels of the first rows."""
        return self._listed(self.labels, ", ")

    def _listed(self, parts: list[str], separator: str) -> str:
        return separator.join(parts) + (f"{separator}..." if len(self) > len(parts) else "")


def log_row(number: int, label: str, problem: str) -> None:
    """Print a row's fault, the ``number``-th of its kind, up to :data:`LOGGED`."""
    if number <= LOGGED:
        print(f"{label} {problem}")
    elif number == LOGGED + 1:
        print(f"only the first {LOGGED:,} rows of this kind are listed")


def row_label(row: int, line: int) -> str:
    """Return a row's name in messages: row number and line number from 1; line 0 means that the source has no lines."""
    return f"row {row} (line {line})" if line else f"row {row}"


def counted(count: int, total: int, what: str) -> str:
    """Return "2 of 1,000 rows are bad" for ``what`` = ``bad``."""
    return f"{count:,} of {total:,} rows {are(count)} {what}"


def are(count: int) -> str:
    """Return the verb that follows a count."""
    return "is" if count == 1 else "are"


def may_be_left_out(count: float, total: float, share: float) -> bool:
    """Return whether ``count`` of ``total`` rows are at most ``share`` of them."""
    return count <= share * total * (1 + _TOLERANCE)


def sufficient_share(count: float, total: float) -> float:
    """Return the smallest share, with two significant digits, that allows ``count`` of ``total`` rows to be left out."""
    digits = 1 - math.floor(math.log10(count / total))
    scale: float = 10**digits
    return min(1.0, round(math.ceil(count / total * scale * (1 - _TOLERANCE)) / scale, digits))
