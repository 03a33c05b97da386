"""Index of a file whose JSON values span lines, or are the elements of one array. The file is read in blocks and not parsed."""

from __future__ import annotations

import json
import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .line_scan import Advance
from .row_index import LARGEST_ROW, IndexBuilder, RowIndex

_BLOCK, _LARGEST_BLOCK = 1 << 20, 32 << 20
_SHOWN_BYTES = 16 << 20
"""Largest part of a broken value that is parsed to find the fault."""
_BETWEEN = re.compile(rb"(?:[ \t\r\n\v\f]|\xef\xbb\xbf)*+")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,{}\[\]"]*+')
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_DEPTH = np.zeros(256, dtype=np.int8)
"""What each byte adds to the depth of brackets."""
_DEPTH[list(b"{[")], _DEPTH[list(b"}]")] = 1, -1


def index_array(path: Path, name: str, advance: Advance) -> RowIndex:
    """Return the index of the elements of a JSON array. Faults inside an element are left to its reader.

    Raises:
        StageError: ``DatasetUnreadable``: the file is not an array.
    """
    builder = IndexBuilder(breaks=True)
    with path.open("rb") as stream:
        scanner = _Scanner(stream, name, advance, depth=-1)
        scanner.skip_space()
        scanner.position += 1  # the opening bracket
        closed = scanner.skip_space() == b"]"
        while not closed:
            scanner.take_value(builder)
            after = scanner.skip_space()
            if after not in (b",", b"]"):
                raise scanner.broken("expected ',' or ']'")
            closed = after == b"]"
            if not closed:
                scanner.position += 1
                scanner.skip_space()
        scanner.position += 1
        if scanner.skip_space():
            raise scanner.broken("something follows the array")
    return builder.build()


def index_values(path: Path, name: str, advance: Advance) -> RowIndex:
    """Return the index of JSON values, one after the other.

    Raises:
        StageError: ``DatasetUnreadable``: the brackets do not match.
    """
    builder = IndexBuilder(breaks=True)
    with path.open("rb") as stream:
        scanner = _Scanner(stream, name, advance)
        while scanner.skip_space():
            scanner.take_value(builder)
    return builder.build()


class _Scanner:
    """Position in a file. The rest of a block is kept until the value that begins in it has ended."""

    def __init__(self, stream: BinaryIO, name: str, advance: Advance, depth: int = 0) -> None:
        self._stream, self._name, self._advance = stream, name, advance
        self._data, self._offset = b"", 0
        self._structure, self._ends = _Structure(depth), deque[int]()
        self._line, self._counted, self._after_return = 1, 0, False
        self.position = 0

    def skip_space(self) -> bytes:
        """Move to the next byte that is not white space and return it; empty at the end of the file."""
        while True:
            found = _BETWEEN.match(self._data, self.position)
            self.position = found.end() if found else self.position
            # A byte order mark may be cut at the end of the block.
            if len(self._data) - self.position > 2 or not self._read():
                return self._data[self.position : self.position + 1]

    def take_value(self, builder: IndexBuilder) -> None:
        """Add the value at the position and move behind it.

        Raises:
            StageError: ``DatasetUnreadable``: there is no value, or it has no end.
        """
        end = self._end_of_value() if self.position < len(self._data) else self.position
        begin = self.position
        if end == begin:
            raise self.broken("expected a value")
        self._count_lines()
        builder.add(self._line, self._offset + begin, end - begin)
        self.position = end

    def broken(self, detail: str) -> StageError:
        """Return the error for the position."""
        self._count_lines()
        return StageError(
            reasons.DATASET_UNREADABLE,
            f"{self._name}: line {self._line} is not JSON ({detail}); write an array of objects, or one object per line.",
        )

    def _end_of_value(self) -> int:
        """Return the end of the value at the position; the position itself if there is none."""
        first = self._data[self.position : self.position + 1]
        if first in (b"{", b"["):
            return self._end_of_brackets()
        pattern = _STRING if first == b'"' else _SCALAR
        while True:
            found = pattern.match(self._data, self.position)
            if found and found.end() < len(self._data):
                return found.end()
            if not self._read():
                break
        found = pattern.match(self._data, self.position)  # reading has moved the position
        if not found:
            raise self._unfinished()
        return found.end()

    def _end_of_brackets(self) -> int:
        while True:
            while self._ends and self._ends[0] < self._offset + self.position:
                self._ends.popleft()
            if self._ends:
                return self._ends.popleft() - self._offset + 1
            if not self._read():
                raise self._unfinished()

    def _read(self) -> bool:
        """Add a block, as long as what is kept, and drop what is before the position; return whether the file has more."""
        self._count_lines()
        kept = self._data[self.position :]
        if len(kept) > LARGEST_ROW:
            raise self.broken(f"a value that begins here does not end within {LARGEST_ROW >> 20} MiB")
        more = self._stream.read(min(max(_BLOCK, len(kept)), _LARGEST_BLOCK))
        end = self._offset + len(self._data)
        self._ends.extend(end + place for place in self._structure.ends(more))
        self._offset += self.position
        self._data, self.position, self._counted = kept + more, 0, 0
        self._advance(len(more))
        return bool(more)

    def _count_lines(self) -> None:
        """Add the line ends before the position."""
        passed = self._data[self._counted : self.position]
        if passed:
            self._line += passed.count(b"\n") + passed.count(b"\r") - passed.count(b"\r\n")
            self._line -= self._after_return and passed.startswith(b"\n")
            self._after_return = passed.endswith(b"\r")
            self._counted = self.position

    def _unfinished(self) -> StageError:
        """Return the error for the value at the position, which the file does not end."""
        text = self._data[self.position : self.position + _SHOWN_BYTES].decode(errors="replace")
        detail = "its brackets do not match"
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            if len(self._data) - self.position <= _SHOWN_BYTES or error.pos < len(text):
                detail = error.msg
                self.position += len(text[: error.pos].encode())
        except RecursionError:
            detail = "it is nested too deeply"
        except ValueError:
            detail = "an integer has more than 4,300 digits"
        return self.broken(detail)


class _Structure:
    """Brackets of a JSON text, found by NumPy, a block at a time.

    Args:
        depth: depth of brackets before the text; the values whose ends are looked for are at depth 0.
    """

    def __init__(self, depth: int) -> None:
        self._depth, self._in_string, self._escaping = depth, False, False

    def ends(self, block: bytes) -> list[int]:
        """Return the positions in the next block of the brackets that end a value at depth 0."""
        data = np.frombuffer(block, dtype=np.uint8)
        quotes = self._quotes(data)
        brackets = np.flatnonzero(_DEPTH[data])
        outside = (np.searchsorted(quotes, brackets) + self._in_string) % 2 == 0
        brackets = brackets[outside]
        steps = _DEPTH[data[brackets]]
        depths = self._depth + np.cumsum(steps, dtype=np.int64)
        if len(depths):
            self._depth = int(depths[-1])
        self._in_string ^= len(quotes) % 2 == 1
        ends: list[int] = brackets[(depths == 0) & (steps < 0)].tolist()
        return ends

    def _quotes(self, data: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Return the positions of the quotes that are not escaped: those after an even number of backslashes."""
        quotes = np.flatnonzero(data == _QUOTE)
        slashes = np.flatnonzero(data == _BACKSLASH)
        if self._escaping:
            slashes = np.concatenate([[-1], slashes])
        if not len(slashes):
            return quotes
        begins = np.diff(slashes, prepend=-3) != 1
        run = slashes[begins][np.cumsum(begins) - 1]
        escaping = slashes[(slashes - run) % 2 == 0]  # the others are escaped themselves
        self._escaping = bool(escaping[-1] == len(data) - 1)
        return quotes[~np.isin(quotes - 1, escaping, assume_unique=True)]
