"""Index of a file with one row per line. Lines without anything unusual are found by NumPy, a block at a time."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .row_index import LARGEST_ROW, IndexBuilder, RowIndex

_BLOCK = 1 << 20
"""Bytes that are searched at once: few enough for the caches of a processor."""
_DECODER = json.JSONDecoder()
_WHITE_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_FEED, _RETURN, _SPACE, _MARK = 0x0A, 0x0D, 0x20, codecs.BOM_UTF8[0]

Advance = Callable[[int], object]
"""Progress callback: called with the number of bytes or rows processed since the last call."""


def index_lines(path: Path, name: str, advance: Advance) -> RowIndex:
    """Return the index of the lines of a file. Empty lines are skipped.

    Raises:
        StageError: ``DatasetUnreadable``: a line is longer than :data:`.row_index.LARGEST_ROW`.
    """
    builder, line, offset = IndexBuilder(), 1, 0
    with path.open("rb", buffering=0) as stream:
        for block, has_return in _blocks(stream, name):
            line += _add_lines(builder, block, offset, line, has_return)
            offset += len(block)
            advance(len(block))
    return builder.build()


def stripped(line: bytes) -> tuple[int, bytes]:
    """Return a line without surrounding white space and byte order mark (concatenated files have several), and its offset."""
    text = line.lstrip()
    if text.startswith(codecs.BOM_UTF8):
        text = text[len(codecs.BOM_UTF8) :].lstrip()
    return len(line) - len(text), text.rstrip()


def _blocks(stream: io.FileIO, name: str) -> Iterator[tuple[memoryview, bool]]:
    """Yield whole lines, about a megabyte at a time, and whether they have a carriage return.

    A block is valid until the next one is requested.
    """
    buffer, filled = bytearray(_BLOCK), 0
    while True:
        with memoryview(buffer) as free:
            more = stream.readinto(free[filled:])
        end = buffer.rfind(b"\n", filled, filled + (more or 0)) + 1
        filled += more or 0
        if not more:
            end = filled
        if end:
            with memoryview(buffer)[:end] as block:
                yield block, buffer.find(b"\r", 0, end) >= 0
            buffer[: filled - end] = buffer[end:filled]
            filled -= end
        if not more:
            return
        if filled == len(buffer):
            if filled >= LARGEST_ROW:
                raise StageError(
                    reasons.DATASET_UNREADABLE,
                    f"{name}: a line has more than {LARGEST_ROW >> 20} MiB; write one object per line.",
                )
            buffer.extend(bytes(filled))


def _add_lines(builder: IndexBuilder, block: memoryview, offset: int, line: int, has_return: bool) -> int:
    """Add the rows of a block that begins at ``offset`` with line number ``line``; return its number of lines."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == _LINE_FEED)
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    returns = np.flatnonzero(data == _RETURN) if has_return else np.empty(0, dtype=np.intp)
    lengths -= (lengths > 0) & (data[ends - 1] == _RETURN)
    usual = _usual(data, starts, lengths, returns)
    numbers = line + np.arange(len(ends))
    begin = extra = 0
    for odd in [*np.flatnonzero(~usual).tolist(), len(ends)]:
        builder.extend(numbers[begin:odd] + extra, starts[begin:odd] + offset, lengths[begin:odd])
        begin = odd + 1
        if odd < len(ends):
            text = bytes(block[starts[odd] : ends[odd]])
            extra += _add_unusual(builder, text, int(starts[odd]) + offset, int(numbers[odd]) + extra)
    return len(ends) + extra


def _usual(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64], returns: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return, for each line, whether its text is a row: not empty, no white space or mark around it, no carriage return inside."""
    first, last = data[np.minimum(starts, len(data) - 1)], data[starts + lengths - 1]
    usual: NDArray[np.bool_] = (lengths > 0) & (first > _SPACE) & (first != _MARK) & (last > _SPACE)
    lines = np.searchsorted(starts, returns, side="right") - 1
    usual[lines[returns < starts[lines] + lengths[lines]]] = False
    return usual


def _add_unusual(builder: IndexBuilder, text: bytes, start: int, line: int) -> int:
    """Add the rows of a line that NumPy does not handle, and return the number of line ends in it."""
    indent, text = stripped(text)
    if b"\r" not in text:
        if text:
            builder.add(line, start + indent, len(text))
        return 0
    before, builder.breaks = 0, True
    for first, length, before in _between_returns(text):
        builder.add(line + before, start + indent + first, length)
    return before


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
        found = _WHITE_SPACE.match(string, end)
        following = found.end() if found else end
        offset += len(string[position:following].encode(errors="surrogateescape"))
        before += string.count("\r", end, following)
        position = following
