"""Rows of a file by number: only their places are in memory, their text is read when it is needed.

Rows are never taken through Arrow here: its JSON reader guesses one type a column, so that ``1`` comes back as ``1.0`` beside
a ``1.5``, a column of dates as timestamps, and a faulty row as a fault of the file. A row is published as the text it came as.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .formats import require_json
from .json_text import plain
from .row_faults import row_label

_SPACE = re.compile(r"[ \t\r\n]*")
_FOLD = re.compile(r"\s*\n\s*")
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_SNIFF_BYTES = 1 << 16
_REPORT_BYTES = 1 << 20
_DECODER = json.JSONDecoder()

Advance = Callable[[int], object]
"""Told how many more bytes, or rows, are done."""


@dataclass(frozen=True)
class JsonLines:
    """Rows of a file.

    Attributes:
        path: the file, with one JSON value a line.
        places: int64, shape (rows, 4): row number in the source (from 1), line number there (from 1, 0 where there are no lines),
            first byte and length of the text in ``path``.
        faults: what is wrong with a row that its text does not show, by its number in the source.
    """

    path: Path
    index: NDArray[np.int64]
    faults: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def select(self, numbers: Sequence[int] | NDArray[np.int64]) -> JsonLines:
        """Return the rows with these positions, in this order."""
        return replace(self, index=self.index[np.asarray(numbers, dtype=np.int64)])

    def texts(self) -> Iterator[bytes]:
        """The rows' JSON as it is in the file, in order."""
        with self.path.open("rb") as stream:
            for start, length in self.index[:, 2:].tolist():
                yield os.pread(stream.fileno(), length, start)  # no buffer: held-out rows are all over the file

    def label(self, position: int) -> str:
        """Return how messages name a row."""
        row, line = self.index[position, :2].tolist()
        return row_label(row, line)

    def fault(self, position: int) -> str | None:
        """Return what is wrong with a row beside its text."""
        return self.faults.get(int(self.index[position, 0])) if self.faults else None


@dataclass(frozen=True)
class OpenedRows:
    """Chosen rows of a source.

    Attributes:
        total: how many rows the source has.
        notes: warnings about what is left out of the rows, without the name of the source.
    """

    rows: JsonLines
    total: int
    notes: tuple[str, ...] = ()


def open_rows(path: Path, name: str, lines: Path, advance: Advance) -> JsonLines:
    """Return the rows of a file: see :func:`index_rows`.

    Raises:
        StageError: ``DatasetUnreadable``: it is no JSON. ``DatasetEmpty``: it has no row.
    """
    rows = index_rows(path, name, lines, advance)
    if not len(rows):
        raise StageError(reasons.DATASET_EMPTY, f"{name} has no rows; name a file with one chat row a line.")
    return rows


def index_rows(path: Path, name: str, lines: Path, advance: Advance) -> JsonLines:
    """Return the rows of a file with JSON Lines, with JSON values over several lines each, or with one JSON array.

    An array is written as lines to the file ``lines``. ``advance`` is told how many more bytes were read.

    Raises:
        StageError: ``DatasetUnreadable``: it is none of them.
    """
    with path.open("rb") as stream:
        head = stream.read(_SNIFF_BYTES).removeprefix(codecs.BOM_UTF8)
    require_json(head, name)
    if head.lstrip().startswith(b"["):
        return _array(path, name, lines, advance)
    return _spread_values(path, name) if _begins_spread(path) else _lines(path, advance)


def gather(parts: Sequence[JsonLines], numbers: Sequence[int], target: Path, advance: Advance) -> JsonLines:
    """Return rows of several files as those of one source, numbered through; ``numbers`` are positions among all of them.

    A row has a line number only where there is one file.
    """
    index = np.concatenate([part.index for part in parts])
    files = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    starts = array("q", [0])
    streams = [part.path.open("rb") for part in parts]
    try:
        with target.open("wb", buffering=1 << 20) as sink:
            for number in numbers:
                start, length = index[number, 2:].tolist()
                text = plain(os.pread(streams[files[number]].fileno(), length, start))
                starts.append(starts[-1] + sink.write(text) + sink.write(b"\n"))
                advance(1)
    finally:
        for stream in streams:
            stream.close()
    chosen = np.asarray(numbers, dtype=np.int64)
    lines = index[chosen, 1] if len(parts) == 1 else np.zeros_like(chosen)
    return JsonLines(target, written_index(chosen + 1, lines, starts))


def written_index(rows: NDArray[np.int64], lines: NDArray[np.int64], starts: array[int]) -> NDArray[np.int64]:
    """Return the places of rows that were written one a line; ``starts`` are the first bytes of each, and the size of them all."""
    begin = np.frombuffer(starts, dtype=np.int64)
    return np.stack([rows, lines, begin[:-1], np.diff(begin) - 1], axis=1)


def write_rows(target: Path, rows: JsonLines, advance: Advance) -> int:
    """Write the rows' texts to ``target``, each on one line, and return the bytes; ``advance`` is told how many more are written."""
    size = count = 0
    with target.open("wb", buffering=1 << 20) as stream:
        for count, text in enumerate(rows.texts(), start=1):
            size += stream.write(plain(text)) + stream.write(b"\n")
            if not count % 1000:
                advance(1000)
    advance(count % 1000)
    return size


def write_locations(target: Path, rows: JsonLines) -> None:
    """Save where the rows are in their source: int64, shape (rows, 2), row and line number from 1 (line 0: there are no lines)."""
    np.save(target, rows.index[:, :2], allow_pickle=False)


def _lines(path: Path, advance: Advance) -> JsonLines:
    """Return where the rows are, one a line. Empty lines are no rows."""
    flat = array("q")
    row, start, reported, returns = 1, 0, 0, 0
    with path.open("rb", buffering=1 << 20) as stream:
        for number, line in enumerate(stream, start=1):
            indent, text = _stripped(line)
            if b"\r" in text:
                for first, length, before in _between_returns(text):
                    flat.extend((row, number + returns + before, start + indent + first, length))
                    row += 1
                returns += before
            elif text:
                flat.extend((row, number + returns, start + indent, len(text)))
                row += 1
            start += len(line)
            if start - reported >= _REPORT_BYTES:
                advance(start - reported)
                reported = start
    return JsonLines(path, _index(flat))


def _stripped(line: bytes) -> tuple[int, bytes]:
    """Return a line without white space and byte order mark (joined files have several), and where it begins."""
    text = line.lstrip()
    if text.startswith(codecs.BOM_UTF8):
        text = text[len(codecs.BOM_UTF8) :].lstrip()
    return len(line) - len(text), text.rstrip()


def _between_returns(text: bytes) -> Iterator[tuple[int, int, int]]:
    """First byte and length of each row in a line with carriage returns, and how many of them end rows before it.

    A carriage return is white space inside a value, and a line's end (as classic Mac OS had it) behind one.
    """
    string = text.decode(errors="surrogateescape")
    position = offset = before = 0
    while position < len(string):
        try:
            _, end = _DECODER.raw_decode(string, position)
        except (ValueError, RecursionError):
            end = position
        ends = string.find("\r", end)
        if end == position or string[end : ends if ends >= 0 else None].strip():
            end = ends if ends >= 0 else len(string)
        length = len(string[position:end].rstrip().encode(errors="surrogateescape"))
        yield offset, length, before
        following = _after_space(string, end)
        offset += len(string[position:following].encode(errors="surrogateescape"))
        before += string.count("\r", end, following)
        position = following


def _begins_spread(path: Path) -> bool:
    """Return whether the file begins with an object over several lines.

    In JSON Lines, too, the first row can be broken off; then the line behind it is whole.
    """
    with path.open("rb") as stream:
        first, second = [*itertools.islice(filter(None, (_stripped(line)[1] for line in stream)), 2), b"", b""][:2]
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


def _spread_values(path: Path, name: str) -> JsonLines:
    """Return where the values are, each over as many lines as its brackets say.

    Raises:
        StageError: ``DatasetUnreadable``: the brackets do not match.
    """
    flat = array("q")
    row, start, depth, begin, first_line = 1, 0, 0, 0, 0
    with path.open("rb", buffering=1 << 20) as stream:
        for number, line in enumerate(stream, start=1):
            indent, text = _stripped(line)
            if not depth:
                begin, first_line = start + indent, number
            found = [bracket for bracket in _BRACKET.findall(text) if not bracket.startswith(b'"')]
            depth += sum(1 if bracket in b"{[" else -1 for bracket in found)
            if depth < 0:
                break
            if text and not depth:
                flat.extend((row, first_line, begin, start + indent + len(text) - begin))
                row += 1
            start += len(line)
    if depth:
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: the brackets of the value that begins in line {first_line} do not match; correct it, or write one object a line.",
        )
    return JsonLines(path, _index(flat))


def _array(path: Path, name: str, target: Path, advance: Advance) -> JsonLines:
    """Write each element of a JSON array as one line. The file is in memory once; of the elements one at a time."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name} is not UTF-8 ({error.reason} at byte {error.start + 1}); save it as UTF-8."
        ) from error
    flat = array("q")
    row, start, reported = 1, 0, 0
    with target.open("wb", buffering=1 << 20) as stream:
        for line, element in _elements(text, name):
            content = _FOLD.sub(" ", element).encode()  # a line break in JSON stands between tokens only
            flat.extend((row, line, start, len(content)))
            start += stream.write(content) + stream.write(b"\n")
            row += 1
            if start - reported >= _REPORT_BYTES:
                advance(start - reported)
                reported = start
    return JsonLines(target, _index(flat))


def _elements(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each element of the array in ``text``."""
    position, line, counted = _after_space(text, text.index("[") + 1), 1, 0
    closed = text.startswith("]", position)
    while not closed:
        try:
            _, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _broken_array(text, getattr(error, "pos", position), name, _detail(error)) from error
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


def _detail(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a whole number has more than 4,300 digits"


def _broken_array(text: str, position: int, name: str, detail: str) -> StageError:
    line = text.count("\n", 0, position) + 1
    return StageError(
        reasons.DATASET_UNREADABLE,
        f"{name}: line {line} is not JSON ({detail}); write an array of objects, or one object a line.",
    )


def _index(flat: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(flat, dtype=np.int64).reshape(-1, 4) if flat else np.empty((0, 4), dtype=np.int64)
