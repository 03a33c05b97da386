"""CSV and TSV to JSON Lines, with Python's own reader: cells are text, and rows have the line numbers of the file.

Arrow's reader is not used: it infers types, so that ``007`` becomes ``7``, it knows no line numbers, and a row that is larger than its
block fails.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.row_index import LARGEST_ROW, written_index

JSON_COLUMNS = ("messages", "conversations", "tools")
"""Columns whose cells are JSON text."""
_REPORT_BYTES = 1 << 20
_UNCLOSED = "unexpected end of data"
_LINE_BREAK = re.compile(r"(?<![ \t])[ \t]*[\r\n]\s*")
"""White space between two tokens of JSON: a string has no line break."""


def delimited_rows(
    path: Path, name: str, delimiter: str, target: Path, advance: Callable[[int], object]
) -> tuple[JsonLines, tuple[str, ...]]:
    """Write the rows as JSON Lines to ``target``; return them, and notes about columns of JSON text.

    A cell of a column in :data:`JSON_COLUMNS` is JSON text and is written as it is; an empty one is left out. Any other cell is a string.

    Raises:
        StageError: ``DatasetUnreadable``: the text is not UTF-8, a quote is not closed, or the header is not a list of different names.
    """
    csv.field_size_limit(LARGEST_ROW)
    flat, starts, faults = array("q"), array("q", [0]), dict[int, str]()
    try:
        with path.open(encoding="utf-8-sig", newline="") as source, target.open("wb", buffering=1 << 20) as sink:
            records = _records(_Lines(source), delimiter)
            header = _checked_header(next(records, (1, []))[1], name)
            reported = 0
            for row, (line, cells) in enumerate(records, start=1):
                if len(cells) != len(header):
                    faults[row] = f"has {_cells(len(cells))}, and the header has {len(header)}"
                text, fault = _json_row(header, cells)
                if fault:
                    faults.setdefault(row, fault)
                flat.extend((row, line))
                starts.append(starts[-1] + sink.write(text) + sink.write(b"\n"))
                if starts[-1] - reported >= _REPORT_BYTES:
                    advance(starts[-1] - reported)
                    reported = starts[-1]
    except UnicodeDecodeError as error:
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: {_not_utf8(path)}; save it as UTF-8.") from error
    except csv.Error as error:
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: {_problem(error)}; correct it.") from error
    places = np.frombuffer(flat, dtype=np.int64).reshape(-1, 2) if flat else np.empty((0, 2), dtype=np.int64)
    return JsonLines(target, written_index(places[:, 0], places[:, 1], starts), faults), _notes(header)


def _not_utf8(path: Path) -> str:
    """Return the fault of a file that is not UTF-8, with its first line that is not."""
    with path.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(LARGEST_ROW), b""), start=1):
            if len(line) >= LARGEST_ROW:
                return f"line {number} has more than {LARGEST_ROW >> 20} MiB, and the text is not UTF-8"
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start + 1})"
    return "it is not UTF-8"  # it has changed since


class _BrokenRecord(csv.Error):
    """A record that the reader rejects, with the line that it begins at."""

    def __init__(self, line: int, error: csv.Error) -> None:
        super().__init__(str(error))
        self.line = line


class _Lines:
    """The lines of a file; those of one record have at most :data:`LARGEST_ROW` characters, so that a reader's memory is bounded."""

    def __init__(self, source: TextIO) -> None:
        self._source, self._read = source, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._source.readline(LARGEST_ROW + 1 - self._read)
        self._read += len(line)
        if self._read > LARGEST_ROW:
            raise csv.Error(f"it has more than {LARGEST_ROW >> 20} MiB")
        if not line:
            raise StopIteration
        return line

    def next_record(self) -> None:
        """Begin to count again."""
        self._read = 0


def _records(source: _Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each record begins at and its cells, without empty lines."""
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        source.next_record()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _BrokenRecord(line, error) from error
        if cells is None:
            return
        if cells:
            yield line, cells


def _checked_header(header: list[str], name: str) -> list[str]:
    twice = next((column for column, number in Counter(header).items() if number > 1), None)
    if twice is not None:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name}: its header has column {twice!r} twice; rename one of the two columns."
        )
    if header and header[0].lower().startswith("sep="):
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: its first line is the one with sep= of Excel; remove that line.")
    if header and header[0].lstrip().startswith("{"):
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: looks like JSON Lines; name it .jsonl.")
    if len(header) == 1 and header[0].count(";"):
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: its cells are separated by semicolons ({header[0][:60]}); separate them by commas.",
        )
    if len(header) == 1 and header[0].count("\t"):
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: its cells are separated by tabs ({header[0][:60]!r}); name it .tsv, or separate them by commas.",
        )
    return header


def _json_row(header: list[str], cells: list[str]) -> tuple[bytes, str | None]:
    """Return a row as JSON, and its fault: a cell of a column of JSON text has other text."""
    parts, fault = [], None
    for column, cell in zip(header, cells, strict=False):
        value = json.dumps(cell, ensure_ascii=False)
        if column in JSON_COLUMNS:
            if not cell.strip():
                continue
            problem = _json_problem(cell)
            if problem:
                fault = fault or f"has text in column {column} that is not JSON ({problem})"
            else:
                value = _LINE_BREAK.sub(" ", cell)
        parts.append(f"{json.dumps(column, ensure_ascii=False)}: {value}")
    return f"{{{', '.join(parts)}}}".encode(), fault


def _json_problem(cell: str) -> str | None:
    try:
        json.loads(cell)
    except json.JSONDecodeError as error:
        return f"{error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError):
        return "it is nested too deeply, or a number has too many digits"
    return None


def _problem(error: csv.Error) -> str:
    line = error.line if isinstance(error, _BrokenRecord) else 1
    if _UNCLOSED in str(error):
        return f"the quote that is opened in the row at line {line} is not closed"
    return f"the row at line {line} is not a row of CSV ({re.sub(r'^line ', 'it ', str(error))})"


def _notes(header: list[str]) -> tuple[str, ...]:
    found = [column for column in header if column in JSON_COLUMNS]
    return (f"the text in column {' and '.join(found)} is read as JSON.",) if found else ()


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"
