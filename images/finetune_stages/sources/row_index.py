"""Index of the rows of a file: where the text of each row is, and its row and line number in the source."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_ROW = 256 << 20
"""Largest number of bytes of a row, which bounds the memory of a reader."""


@dataclass(frozen=True)
class RowIndex:
    """Locations of rows, in columns: 12 bytes for each row of a file with one row per line.

    Attributes:
        starts: int64, shape (rows,): offset of the row's text in bytes.
        lengths: uint32, shape (rows,): its length in bytes.
        rows: uint32, shape (rows,): row number in the source, from 1; ``None``: 1, 2, 3 and so on.
        lines: uint32, shape (rows,): line number in the source, from 1, or 0 if the source has no lines; ``None``: the row number.
        breaks: whether the text of a row may have line breaks between its tokens.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    rows: NDArray[np.uint32] | None = None
    lines: NDArray[np.uint32] | None = None
    breaks: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    def locations(self, positions: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return row and line numbers: int64, shape (positions, 2)."""
        rows = positions + 1 if self.rows is None else self.rows[positions]
        lines = rows if self.lines is None else self.lines[positions]
        return np.stack([rows, lines], axis=1).astype(np.int64, copy=False)


class IndexBuilder:
    """Builder of the index of a file's rows, in order.

    Attributes:
        breaks: see :class:`RowIndex`.
    """

    def __init__(self, breaks: bool = False) -> None:
        self.breaks = breaks
        self._starts, self._lengths, self._lines = array("q"), array("I"), array("I")

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, line: int, start: int, length: int) -> None:
        """Add a row."""
        self._starts.append(start)
        self._lengths.append(length)
        self._lines.append(line)

    def extend(self, lines: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Add rows."""
        self._starts.frombytes(starts.astype(np.int64, copy=False).tobytes())
        self._lengths.frombytes(lengths.astype(np.uint32).tobytes())
        self._lines.frombytes(lines.astype(np.uint32).tobytes())

    def build(self) -> RowIndex:
        """Return the index."""
        lines = _column(self._lines, np.uint32)
        numbered = bool((lines == np.arange(1, len(lines) + 1, dtype=np.uint32)).all())
        return RowIndex(
            _column(self._starts, np.int64), _column(self._lengths, np.uint32), None, None if numbered else lines, self.breaks
        )


def written_index(rows: NDArray[np.int64], lines: NDArray[np.int64], starts: array[int]) -> RowIndex:
    """Return the index of rows that were written one per line; ``starts`` has the offset of each row and the total size."""
    begin = np.frombuffer(starts, dtype=np.int64)
    return RowIndex(begin[:-1], (np.diff(begin) - 1).astype(np.uint32), rows.astype(np.uint32), lines.astype(np.uint32))


def _column(values: array[int], kind: Any) -> NDArray[Any]:
    return np.frombuffer(values, dtype=kind) if values else np.empty(0, dtype=kind)
