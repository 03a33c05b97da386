"""Rows of the files of one location, each of any kind that this release reads, as one source."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.documents import Scalar
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.file_names import listed
from finetune_stages.sources.json_lines import JsonLines, OpenedRows, index_rows
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.row_faults import row_label
from finetune_stages.sources.row_index import written_index

from .compressed import unpacked
from .delimited_rows import delimited_rows
from .source_file import DataFile, SourceFile, content_digest
from .table_rows import open_table
from .table_size import table_kind

_HEAD = 16


class Rows(Protocol):
    """The rows of one file."""

    def __len__(self) -> int: ...

    def select(self, numbers: Sequence[int] | NDArray[np.int64]) -> JsonLines:
        """Return the rows at these positions, in this order."""


@dataclass(frozen=True)
class FileSource:
    """The files of one location, in order: a :class:`~.fetch.Source`.

    Attributes:
        scratch: folder for converted rows; its name is a prefix of the names there.
        notes: warnings about files that are left out, without the name of the source.
    """

    name: str
    files: tuple[SourceFile, ...]
    fingerprint: Mapping[str, Scalar]
    scratch: Path
    context: Context
    notes: tuple[str, ...] = ()
    revision: None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the file; of several files, the digest of theirs."""
        return content_digest(self.files)

    def open(self, choose: Callable[[int], Sequence[int]]) -> OpenedRows:
        """Read the selected rows.

        Raises:
            StageError: ``DatasetUnreadable``, ``DatasetEmpty``.
        """
        empty = f"{self.name}: has no rows; set a file with one chat row per line."
        opened = Files(self.files, self.scratch, self.context).open(choose, empty)
        return replace(opened, notes=(*self.notes, *opened.notes))

    def require_unchanged(self) -> None:
        """Check, after reading, that no file changed while it was read.

        Raises:
            StageError: ``DatasetChanged``.
        """
        for file in self.files:
            file.require_unchanged()


@dataclass(frozen=True)
class Files:
    """Files whose rows are read one after another.

    Attributes:
        scratch: folder for converted rows; its name is a prefix of the names there.
    """

    files: Sequence[DataFile]
    scratch: Path
    context: Context

    def open(self, choose: Callable[[int], Sequence[int]], empty: str) -> OpenedRows:
        """Read the selected rows; ``empty`` is the message if there are none.

        Raises:
            StageError: ``DatasetUnreadable``, ``DatasetEmpty``.
        """
        parts: list[Rows] = []
        notes: list[str] = []
        for number, file in enumerate(self.files):
            rows, more = self._rows(file, self.scratch.with_name(f"{self.scratch.name}.{number}"))
            parts.append(rows)
            notes += [f"{file.name}: {note}" if len(self.files) > 1 else note for note in more]
        total = sum(map(len, parts))
        if not total:
            raise StageError(reasons.DATASET_EMPTY, empty)
        without = [file.name for file, part in zip(self.files, parts, strict=True) if not len(part)]
        if without:
            notes.append(f"{'a file has' if len(without) == 1 else 'files have'} no rows: {listed(without)}.")
        numbers = choose(total)
        chosen = parts[0].select(numbers) if len(parts) == 1 else self._joined(parts, np.asarray(numbers, dtype=np.int64))
        return OpenedRows(chosen, total, tuple(notes))

    def _rows(self, file: DataFile, scratch: Path) -> tuple[Rows, tuple[str, ...]]:
        unpacking = ProgressCounter(self.context, f"unpacking {file.name}", high=0)
        path = unpacked(file.path, file.name, scratch.with_name(f"{scratch.name}.unpacked"), unpacking)
        size = path.stat().st_size
        counter = ProgressCounter(self.context, f"finding the rows of {file.name}", size, 50, 60)
        with path.open("rb") as stream:
            kind = table_kind(stream.read(_HEAD))
        target = scratch.with_name(f"{scratch.name}.jsonl")
        if kind:
            table = open_table(path, kind, file.name, target, ProgressCounter(self.context, f"reading {file.name}", rows=True))
            return table, table.notes
        if file.delimiter and size:
            return delimited_rows(path, file.name, file.delimiter, target, counter)
        return index_rows(path, file.name, counter), ()

    def _joined(self, parts: Sequence[Rows], numbers: NDArray[np.int64]) -> JsonLines:
        """Return rows of several files as rows of one file, in the order of ``numbers``, positions among all rows."""
        starts = np.cumsum([0, *map(len, parts)])
        owners = np.searchsorted(starts, numbers, side="right") - 1
        by_file = np.argsort(owners, kind="stable")  # the files are read one after another
        target = self.scratch.with_name(f"{self.scratch.name}.joined.jsonl")
        offsets, lines, faults, breaks = array("q", [0]), array("q"), dict[int, str](), False
        with target.open("wb", buffering=1 << 20) as sink:
            for file, part in enumerate(parts):
                own = numbers[by_file[owners[by_file] == file]]
                if not len(own):
                    continue
                rows = part.select(own - starts[file])
                for text in rows.texts():
                    offsets.append(offsets[-1] + sink.write(text) + sink.write(b"\n"))
                breaks = breaks or rows.index.breaks
                lines.extend(rows.locations()[:, 1].tolist())
                faults |= {row + int(starts[file]): fault for row, fault in rows.faults.items()}
        row_numbers = numbers[by_file] + 1
        index = replace(written_index(row_numbers, np.zeros_like(row_numbers), offsets), breaks=breaks)
        places = np.stack([row_numbers, np.asarray(lines, dtype=np.int64)], axis=1)[np.argsort(row_numbers, kind="stable")]
        names = tuple(file.name for file in self.files)
        return RowsOfFiles(target, index, faults, starts=starts, names=names, lines=places).select(np.argsort(by_file))


@dataclass(frozen=True)
class RowsOfFiles(JsonLines):
    """Rows of several files, whose labels name the file. Row numbers in the index count the rows of all files.

    Attributes:
        starts: number of rows before each file, and the total.
        names: the files.
        lines: int64, shape (rows, 2), sorted: row number among all rows, line number in its file (0 if the file has no lines).
    """

    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    names: tuple[str, ...] = ()
    lines: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))

    def label(self, position: int) -> str:
        """Return a row's name in messages: its row and line in its file."""
        row, _ = self.location(position)
        file = int(np.searchsorted(self.starts, row - 1, side="right")) - 1
        line = int(self.lines[np.searchsorted(self.lines[:, 0], row), 1])
        return f"{row_label(row - int(self.starts[file]), line)} of {self.names[file]}"
