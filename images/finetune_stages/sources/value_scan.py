"""Index of a file whose JSON values span lines, or are the elements of one array. The file is read in blocks and not parsed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import BinaryIO

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .line_scan import Advance
from .row_index import LARGEST_ROW, IndexBuilder, RowIndex

_BLOCK = 4 << 20
_SHOWN_BYTES = 16 << 20
"""Largest part of a broken value that is parsed to find the fault."""
_BETWEEN = re.compile(rb"(?:[ \t\r\n\v\f]|\xef\xbb\xbf)*+")
_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,{}\[\]"]*+')
_QUOTE, _OPENING = ord('"'), b"{["


def index_array(path: Path, name: str, advance: Advance) -> RowIndex:
    """Return the index of the elements of a JSON array. Faults inside an element are left to its reader.

    Raises:
        StageError: ``DatasetUnreadable``: the file is not an array.
    """
    builder = IndexBuilder(breaks=True)
    with path.open("rb") as stream:
        scanner = _Scanner(stream, name, advance)
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

    def __init__(self, stream: BinaryIO, name: str, advance: Advance) -> None:
        self._stream, self._name, self._advance = stream, name, advance
        self._data, self._offset = b"", 0
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
        while self._data[self.position] not in b'{["':
            found = _SCALAR.match(self._data, self.position)
            end = found.end() if found else self.position
            if end < len(self._data) or not self._read():
                return end
        depth = scanned = 0  # from the position
        while True:
            for token in _BRACKET.finditer(self._data, self.position + scanned):
                kind, complete = self._data[token.start()], token.end() - token.start() > 1
                if kind == _QUOTE and not complete:
                    scanned = token.start() - self.position
                    break
                depth += 0 if kind == _QUOTE else 1 if kind in _OPENING else -1
                if not depth:
                    return token.end()
                scanned = token.end() - self.position
            if not self._read():
                raise self._unfinished()

    def _read(self) -> bool:
        """Add a block, as long as what is kept, and drop what is before the position; return whether the file has more."""
        self._count_lines()
        kept = self._data[self.position :]
        if len(kept) > LARGEST_ROW:
            raise self.broken(f"a value that begins here does not end within {LARGEST_ROW >> 20} MiB")
        more = self._stream.read(max(_BLOCK, len(kept)))
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
