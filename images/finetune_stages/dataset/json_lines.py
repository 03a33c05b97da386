"""Rows of a file by number: only their places are in memory, their text is read when it is needed.

Rows are never taken through Arrow here: its JSON reader guesses one type a column, so that ``1`` comes back as ``1.0`` beside
a ``1.5``, a column of dates as timestamps, and a faulty row as a fault of the file. A row is published as the text it came as.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.kit import StageError

_SPACE = re.compile(r"[ \t\r\n]*")
_FOLD = re.compile(r"\s*\n\s*")
_SNIFF_BYTES = 1 << 16
_TOLD_BYTES = 1 << 20
_FOREIGN = {
    b"<": "a web page (HTML or XML)",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass(frozen=True)
class JsonLines:
    """Rows of a file.

    Attributes:
        path: the file, with one JSON value a line.
        places: int64, shape (rows, 4): row number in the source (from 0), line number there (from 1, 0 where there are no lines),
            first byte and length of the text in ``path``.
    """

    path: Path
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def select(self, numbers: Sequence[int] | NDArray[np.int64]) -> JsonLines:
        """The rows with these positions, in this order."""
        return JsonLines(self.path, self.places[np.asarray(numbers, dtype=np.int64)])

    def texts(self) -> Iterator[bytes]:
        """The rows' JSON, in order."""
        with self.path.open("rb") as stream:
            for start, length in self.places[:, 2:].tolist():
                yield os.pread(stream.fileno(), length, start)  # no buffer: held-out rows lie all over the file

    def label(self, position: int) -> str:
        """How messages name a row: its number counts from 1."""
        row, line = self.places[position, :2].tolist()
        return f"row {row + 1} (line {line})" if line else f"row {row + 1}"


def open_rows(path: Path, name: str, lines: Path, seen: Callable[[int], object]) -> JsonLines:
    """The rows of a file with JSON Lines, or with one JSON array (which is written as lines to the file ``lines``).

    ``seen`` is told how many more bytes were read.

    Raises:
        StageError: ``DatasetUnreadable``: it is neither. ``DatasetEmpty``: it has no row.
    """
    with path.open("rb") as stream:
        head = stream.read(_SNIFF_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    for signature, what in _FOREIGN.items():
        if head.startswith(signature):
            raise StageError(reasons.DATASET_UNREADABLE, f"{name} looks like {what}, not like JSON or JSON Lines.")
    rows = _array(path, name, lines, seen) if head.startswith(b"[") else _lines(path, seen)
    if not len(rows):
        raise StageError(reasons.DATASET_EMPTY, f"{name} has no rows; name a file with one chat row a line.")
    return rows


def parse(text: bytes) -> Any:
    """The JSON value of a row.

    Raises:
        ValueError: it is none: not UTF-8, broken, nested too deeply, or with NaN or Infinity, which JSON does not have.
    """
    try:
        return _DECODER.decode(text.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unreadable(name: str, place: str, error: ValueError) -> StageError:
    """The sentence for a value that is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        detail = f"{error.msg} at character {error.pos + 1}"
    elif isinstance(error, UnicodeDecodeError):
        detail = f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start + 1}"
    else:
        detail = str(error)
    return StageError(reasons.DATASET_UNREADABLE, f"{name}: {place} is not JSON ({detail}); write one object a line.")


def write_rows(target: Path, rows: JsonLines, seen: Callable[[int], object]) -> int:
    """Write the rows' texts to ``target``, one a line, and return the bytes; ``seen`` is told how many more rows are written."""
    size = count = 0
    with target.open("wb", buffering=1 << 20) as stream:
        for count, text in enumerate(rows.texts(), start=1):
            size += stream.write(text) + stream.write(b"\n")
            if not count % 1000:
                seen(1000)
    seen(count % 1000)
    return size


def write_places(target: Path, rows: JsonLines) -> None:
    """Save where the rows are in their source: int64, shape (rows, 2), row and line number from 1 (line 0: there are no lines)."""
    np.save(target, rows.places[:, :2] + np.array([1, 0], dtype=np.int64), allow_pickle=False)


def _lines(path: Path, seen: Callable[[int], object]) -> JsonLines:
    """Where the lines are. Empty ones are no rows."""
    flat = array("q")
    row = start = told = 0
    with path.open("rb", buffering=1 << 20) as stream:
        for number, line in enumerate(stream, start=1):
            indent = 3 if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
            text = line[indent:].strip()
            if text:
                indent = line.index(text[:1], indent)
                flat.extend((row, number, start + indent, len(text)))
                row += 1
            start += len(line)
            if start - told >= _TOLD_BYTES:
                seen(start - told)
                told = start
    return JsonLines(path, _places(flat))


def _array(path: Path, name: str, target: Path, seen: Callable[[int], object]) -> JsonLines:
    """Write each element of a JSON array as one line. The file is in memory once; of the elements one at a time."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name} is not UTF-8 ({error.reason} at byte {error.start + 1})."
        ) from error
    flat = array("q")
    start = row = told = 0
    with target.open("wb", buffering=1 << 20) as stream:
        for line, element in _elements(text, name):
            content = _FOLD.sub(" ", element).encode()  # a line break in JSON stands between tokens only
            flat.extend((row, line, start, len(content)))
            start += stream.write(content) + stream.write(b"\n")
            row += 1
            if start - told >= _TOLD_BYTES:
                seen(start - told)
                told = start
    return JsonLines(target, _places(flat))


def _elements(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each element of the array in ``text``."""
    position, line, counted = _after_space(text, text.index("[") + 1), 1, 0
    closed = text.startswith("]", position)
    while not closed:
        try:
            _, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "pos", position)
            raise _broken_array(text, at, name, getattr(error, "msg", str(error))) from error
        line, counted = line + text.count("\n", counted, position), position
        yield line, text[position:end]
        position = _after_space(text, end)
        if not text.startswith((",", "]"), position):
            raise _broken_array(text, position, name, "expected ',' or ']'")
        closed = text[position] == "]"
        if not closed:
            position = _after_space(text, position + 1)
    rest = _after_space(text, text.index("]", position) + 1)
    if rest < len(text):
        raise _broken_array(text, rest, name, "something follows the array")


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _broken_array(text: str, position: int, name: str, detail: str) -> StageError:
    line = text.count("\n", 0, position) + 1
    return StageError(
        reasons.DATASET_UNREADABLE,
        f"{name}: line {line} is not JSON ({detail}); write an array of objects, or one object a line.",
    )


def _places(flat: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(flat, dtype=np.int64).reshape(-1, 4) if flat else np.empty((0, 4), dtype=np.int64)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
