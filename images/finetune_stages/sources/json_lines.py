"""Random access to the rows of a JSON file: an index of the rows is in memory, their text is read on demand.

Arrow's JSON reader is not used: it infers one type per column, so that ``1`` becomes ``1.0`` if another row has ``1.5``, dates become
timestamps, and a faulty row fails the whole file. A row is published with its original text.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.workspace import SealedFile

from .formats import require_json
from .json_text import plain
from .line_scan import Advance, index_lines, stripped
from .row_faults import row_label
from .row_index import RowIndex
from .value_scan import index_array, index_values

_SNIFF_BYTES = 1 << 16
_BATCH_ROWS, _BATCH_BYTES = 4096, 1 << 20
_LARGEST_GAPS = 2
"""Rows are read together if the bytes between them are at most this many times their own."""


@dataclass(frozen=True)
class JsonLines:
    """Rows of a file.

    Attributes:
        path: the file.
        index: locations of the rows of the file.
        faults: faults of rows that their text does not show, by row number in the source.
        chosen: positions in ``index`` of these rows, in order; ``None``: all of them.
        finite: whether it is known that the rows have no NaN and no infinite number.
    """

    path: Path
    index: RowIndex
    faults: Mapping[int, str] = field(default_factory=dict)
    chosen: NDArray[np.uint32] | None = None
    finite: bool = False

    def __len__(self) -> int:
        return len(self.index) if self.chosen is None else len(self.chosen)

    def select(self, numbers: Sequence[int] | NDArray[np.int64]) -> JsonLines:
        """Return the rows at these positions, in this order."""
        if isinstance(numbers, range) and numbers == range(len(self)):
            return self
        positions = np.asarray(numbers, dtype=np.uint32)
        return replace(self, chosen=positions if self.chosen is None else self.chosen[positions])

    def texts(self) -> Iterator[bytes]:
        """Yield the rows' JSON text as it is in the file, in order."""
        for begin, end in self.batches():
            yield from self.read(begin, end)

    def read(self, begin: int, end: int) -> list[bytes]:
        """Return the JSON text of the rows from position ``begin`` to ``end``."""
        with self.path.open("rb", buffering=0) as stream:
            return _read(stream.fileno(), *self.extents(begin, end))

    def batches(self) -> Iterator[tuple[int, int]]:
        """Yield positions of the begin and end of some thousand rows, with about a megabyte of text unless a row is longer."""
        for begin in range(0, len(self), _BATCH_ROWS):
            _, lengths = self.extents(begin, begin + _BATCH_ROWS)
            parts = np.cumsum(lengths, dtype=np.int64) // _BATCH_BYTES
            cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(lengths)]
            for first, last in itertools.pairwise(cuts):
                yield begin + first, begin + last

    def extents(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return offsets and lengths in bytes of the rows from position ``begin`` to ``end``."""
        chosen: slice | NDArray[np.uint32] = slice(begin, end) if self.chosen is None else self.chosen[begin:end]
        return self.index.starts[chosen], self.index.lengths[chosen]

    def locations(self) -> NDArray[np.int64]:
        """Return row and line numbers in the source: int64, shape (rows, 2), both from 1; line 0: the source has no lines."""
        return self.index.locations(np.arange(len(self.index)) if self.chosen is None else self.chosen.astype(np.intp))

    def label(self, position: int) -> str:
        """Return a row's name in messages."""
        return row_label(*self.location(position))

    def fault(self, position: int) -> str | None:
        """Return the fault of a row that its text does not show, if there is one."""
        return self.faults.get(self.location(position)[0]) if self.faults else None

    def location(self, position: int) -> tuple[int, int]:
        """Return the row and line number of a row in the source: see :meth:`locations`."""
        row, line = self.index.locations(np.array([position if self.chosen is None else self.chosen[position]], dtype=np.intp))[
            0
        ].tolist()
        return row, line


@dataclass(frozen=True)
class OpenedRows:
    """The selected rows of a source.

    Attributes:
        total: number of rows in the source.
        notes: warnings about omitted columns, without the name of the source.
    """

    rows: JsonLines
    total: int
    notes: tuple[str, ...] = ()


def open_rows(path: Path, name: str, advance: Advance) -> JsonLines:
    """Return the rows of a file, at least one. See :func:`index_rows`.

    Raises:
        StageError: ``DatasetUnreadable``: the file is not JSON. ``DatasetEmpty``: it has no rows.
    """
    rows = index_rows(path, name, advance)
    if not len(rows):
        raise StageError(reasons.DATASET_EMPTY, f"{name}: has no rows; set a file with one chat row per line.")
    return rows


def index_rows(path: Path, name: str, advance: Advance) -> JsonLines:
    """Return the rows of a file with JSON Lines, with JSON values that span several lines, or with one JSON array.

    ``advance`` is called with the number of bytes read.

    Raises:
        StageError: ``DatasetUnreadable``: the file has another format.
    """
    with path.open("rb") as stream:
        head = stream.read(_SNIFF_BYTES).removeprefix(codecs.BOM_UTF8)
    require_json(head, name)
    if head.lstrip().startswith(b"["):
        return JsonLines(path, index_array(path, name, advance))
    return JsonLines(path, (index_values if _begins_spread(path) else index_lines)(path, name, advance))


def write_rows(target: Path, rows: JsonLines, advance: Advance) -> SealedFile:
    """Write the rows to ``target``, one per line, and return its size and digest; ``advance`` is called with the number of rows."""
    size, digest, hashed = 0, hashlib.sha256(), Future[None]()
    hashed.set_result(None)
    with target.open("wb") as stream, ThreadPoolExecutor(1) as beside:  # hashing takes as long as reading and writing
        for begin, end in rows.batches():
            texts = rows.read(begin, end)
            if rows.index.breaks or not rows.finite:
                texts = [plain(text) for text in texts]
            block = b"\n".join([*texts, b""])
            stream.write(block)
            hashed.result()
            hashed = beside.submit(digest.update, block)
            size += len(block)
            advance(end - begin)
    return SealedFile(size, digest.hexdigest())


def write_locations(target: Path, rows: JsonLines) -> None:
    """Save the rows' locations in their source: int64, shape (rows, 2), row and line number from 1 (line 0: no lines)."""
    np.save(target, rows.locations(), allow_pickle=False)


def _begins_spread(path: Path) -> bool:
    """Return whether the file begins with an object that spans several lines.

    The first row of JSON Lines can be truncated, too; then the next line is a complete object.
    """
    with path.open("rb") as stream:
        first, second = [*itertools.islice(filter(None, (stripped(line)[1] for line in stream)), 2), b"", b""][:2]
    return first.startswith(b"{") and bool(second) and _breaks_off(first) and not _is_whole(second)


def _breaks_off(text: bytes) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc)
    except (ValueError, RecursionError):
        pass
    return False


def _is_whole(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _read(descriptor: int, starts: NDArray[np.int64], lengths: NDArray[np.uint32]) -> list[bytes]:
    """Return the texts of rows: with one read if they are near each other, or else with one read each."""
    ends = starts + lengths
    first, last, wanted = int(starts.min()), int(ends.max()), int(lengths.sum(dtype=np.int64))
    if last - first > (1 + _LARGEST_GAPS) * wanted:
        return [os.pread(descriptor, length, start) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]
    block = os.pread(descriptor, last - first, first)
    return [block[start:end] for start, end in zip((starts - first).tolist(), (ends - first).tolist(), strict=True)]
