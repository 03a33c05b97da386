"""Random access to the rows of a JSON file: an index of the rows is in memory, their text is read on demand.

Arrow's JSON reader is not used: it infers one type per column, so that ``1`` becomes ``1.0`` if another row has ``1.5``, dates become
timestamps, and a faulty row fails the whole file. A row is published with its original text.
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
"""Progress callback: called with the number of bytes or rows processed since the last call."""


@dataclass(frozen=True)
class JsonLines:
    """Rows of a file.

    Attributes:
        path: the file.
        index: int64, shape (rows, 4): row number in the source (from 1), line number there (from 1; 0 if the source has no lines),
            offset and length in bytes of the text in ``path``.
        faults: faults of rows that their text does not show, by row number in the source.
    """

    path: Path
    index: NDArray[np.int64]
    faults: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def select(self, numbers: Sequence[int] | NDArray[np.int64]) -> JsonLines:
        """Return the rows at these positions, in this order."""
        return replace(self, index=self.index[np.asarray(numbers, dtype=np.int64)])

    def texts(self) -> Iterator[bytes]:
        """Yield the rows' JSON text as it is in the file, in order."""
        with self.path.open("rb") as stream:
            for start, length in self.index[:, 2:].tolist():
                yield os.pread(stream.fileno(), length, start)  # unbuffered: held-out rows are scattered over the file

    def label(self, position: int) -> str:
        """Return a row's name in messages."""
        row, line = self.index[position, :2].tolist()
        return row_label(row, line)

    def fault(self, position: int) -> str | None:
        """Return the fault of a row that its text does not show, if there is one."""
        return self.faults.get(int(self.index[position, 0])) if self.faults else None


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


def open_rows(path: Path, name: str, lines: Path, advance: Advance) -> JsonLines:
    """Return the rows of a file, at least one. See :func:`index_rows`.

    Raises:
        StageError: ``DatasetUnreadable``: the file is not JSON. ``DatasetEmpty``: it has no rows.
    """
    rows = index_rows(path, name, lines, advance)
    if not len(rows):
        raise StageError(reasons.DATASET_EMPTY, f"{name}: has no rows; set a file with one chat row per line.")
    return rows


def index_rows(path: Path, name: str, lines: Path, advance: Advance) -> JsonLines:
    """Return the rows of a file with JSON Lines, with JSON values that span several lines, or with one JSON array.

    The elements of an array are written as lines to the file ``lines``. ``advance`` is called with the number of bytes read.

    Raises:
        StageError: ``DatasetUnreadable``: the file has another format.
    """
    with path.open("rb") as stream:
        head = stream.read(_SNIFF_BYTES).removeprefix(codecs.BOM_UTF8)
    require_json(head, name)
    if head.lstrip().startswith(b"["):
        return _array(path, name, lines, advance)
    return _spread_values(path, name) if _begins_spread(path) else _lines(path, advance)


def gather(parts: Sequence[JsonLines], numbers: Sequence[int], target: Path, advance: Advance) -> JsonLines:
    """Write rows of several files to ``target`` as rows of one source; ``numbers`` are positions among all of them.

    Line numbers are kept only if there is one file.
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
    """Return the index of rows that were written one per line; ``starts`` has the offset of each row and the total size."""
    begin = np.frombuffer(starts, dtype=np.int64)
    return np.stack([rows, lines, begin[:-1], np.diff(begin) - 1], axis=1)


def write_rows(target: Path, rows: JsonLines, advance: Advance) -> int:
    """Write the rows to ``target``, one per line, and return the bytes; ``advance`` is called with the number of rows written."""
    size = count = 0
    with target.open("wb", buffering=1 << 20) as stream:
        for count, text in enumerate(rows.texts(), start=1):
            size += stream.write(plain(text)) + stream.write(b"\n")
            if not count % 1000:
                advance(1000)
    advance(count % 1000)
    return size


def write_locations(target: Path, rows: JsonLines) -> None:
    """Save the rows' locations in their source: int64, shape (rows, 2), row and line number from 1 (line 0: no lines)."""
    np.save(target, rows.index[:, :2], allow_pickle=False)


def _lines(path: Path, advance: Advance) -> JsonLines:
    """Return the rows of a file with one row per line. Empty lines are skipped."""
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
    """Return a line without surrounding white space and byte order mark (concatenated files have several), and its offset."""
    text = line.lstrip()
    if text.startswith(codecs.BOM_UTF8):
        text = text[len(codecs.BOM_UTF8) :].lstrip()
    return len(line) - len(text), text.rstrip()


def _between_returns(text: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield offset and length of each row in a line with carriage returns, and the number of line ends before it.

    A carriage return is white space inside a value, and a line end (of classic Mac OS) after one.
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
    """Return whether the file begins with an object that spans several lines.

    The first row of JSON Lines can be truncated, too; then the next line is a complete object.
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
    """Return the rows of a file whose values span several lines; a value ends where its brackets are balanced.

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
            f"{name}: the brackets of the value at line {first_line} do not match; correct it, or write one object per line.",
        )
    return JsonLines(path, _index(flat))


def _array(path: Path, name: str, target: Path, advance: Advance) -> JsonLines:
    """Write each element of a JSON array as one line. The whole file is in memory, and one element at a time."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name}: is not UTF-8 ({error.reason} at byte {error.start + 1}); save it as UTF-8."
        ) from error
    flat = array("q")
    row, start, reported = 1, 0, 0
    with target.open("wb", buffering=1 << 20) as stream:
        for line, element in _elements(text, name):
            content = _FOLD.sub(" ", element).encode()  # line breaks in JSON are between tokens only
            flat.extend((row, line, start, len(content)))
            start += stream.write(content) + stream.write(b"\n")
            row += 1
            if start - reported >= _REPORT_BYTES:
                advance(start - reported)
                reported = start
    return JsonLines(target, _index(flat))


def _elements(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each element of the array in ``text``."""
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
    return "it is nested too deeply" if isinstance(error, RecursionError) else "an integer has more than 4,300 digits"


def _broken_array(text: str, position: int, name: str, detail: str) -> StageError:
    line = text.count("\n", 0, position) + 1
    return StageError(
        reasons.DATASET_UNREADABLE,
        f"{name}: line {line} is not JSON ({detail}); write an array of objects, or one object per line.",
    )


def _index(flat: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(flat, dtype=np.int64).reshape(-1, 4) if flat else np.empty((0, 4), dtype=np.int64)
