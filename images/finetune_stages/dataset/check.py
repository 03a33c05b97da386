"""Check of every row: bad rows fail the stage or are left out."""

from __future__ import annotations

import itertools
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_contract.row_formats import RowFormat
from finetune_stages.chat.structure import BadConversation, Message, read_row
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import SECOND_VALUE, has_non_finite, json_fault, may_have_non_finite, parse
from finetune_stages.sources.line_scan import Advance
from finetune_stages.sources.row_faults import FaultyRows, counted, may_be_left_out, sufficient_share

from .formats.mapping import ignored_note
from .repeated import repeated_note
from .usual_rows import UsualRows, has_empty_turn, ignored_columns, messages_key

RowFault = Callable[[Any, bytes], str | None]
"""Returns the fault of a row with its JSON text, to follow "row 17"; ``None`` for a good row."""
_USUAL_SHARE = 0.1
"""Default of ``dataset.badRows.share``, the smallest share that a message proposes."""
SourceFault = Callable[[], StageError | None]
"""Returns the error that explains why all rows of a source are bad; ``None`` if there is none."""
RECORDED = 10_000
"""Largest number of bad rows of a source that are recorded with their faults."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: row and line number in its source, from 1 (line 0: the source has no lines), and its fault."""

    row: int
    line: int
    fault: str


@dataclass(frozen=True)
class Checked:
    """The good rows, the number of rows that were left out, and descriptions of the first of those.

    Attributes:
        keys: int64, shape (rows,): hash of each row's messages; equal messages have equal keys.
        bad: the first :data:`RECORDED` of the rows that were left out.
        notes: warnings about the rows, without the name of the source.
        form: form in which the rows are published: messages, text or tokenised.
        mapping: description of what was converted and of columns without an effect; empty if there is nothing of both.
    """

    rows: JsonLines
    keys: NDArray[np.int64]
    dropped: int = 0
    examples: str = ""
    bad: tuple[BadRow, ...] = ()
    notes: tuple[str, ...] = ()
    form: RowFormat = "messages"
    mapping: str = ""


@dataclass
class _Findings:
    """Findings about all rows.

    Attributes:
        keys: the key of each row; 0 for rows with a fault.
        faults: faults of the first bad rows.
        non_finite: rows with NaN or an infinite number outside of messages and tools.
        empty: rows with a blank message of the user.
        ignored: columns of chat rows without an effect, with the number of good rows that have a value in them.
    """

    keys: array[int] = field(default_factory=lambda: array("q"))
    not_json: FaultyRows = field(default_factory=FaultyRows)
    bad: FaultyRows = field(default_factory=FaultyRows)
    faults: list[str] = field(default_factory=list)
    non_finite: FaultyRows = field(default_factory=FaultyRows)
    empty: FaultyRows = field(default_factory=lambda: FaultyRows(logged=False))
    ignored: Counter[str] = field(default_factory=Counter)


def check_rows(
    rows: JsonLines,
    name: str,
    inputs: DatasetInputs,
    advance: Advance,
    row_fault: RowFault | None = None,
    *,
    every_row_bad: SourceFault | None = None,
) -> Checked:
    """Check all rows; ``advance`` is called with the number of rows read.

    ``row_fault`` returns the fault of a row that is no chat row; its key is that of the whole row. By default rows are chat rows.
    ``every_row_bad`` is called if all rows are bad.

    Raises:
        StageError: ``DatasetUnreadable``: rows are not JSON, so the file is damaged; they are never left out. ``BadRow``: rows are not
            chat rows (``bad_rows: Fail``), or more of them than ``bad_rows_share`` allows. ``DatasetEmpty``: no row is left. An error of
            ``every_row_bad``.
    """
    found, usual = _Findings(), UsualRows()
    for begin, end in rows.batches():
        texts, empty = rows.read(begin, end), set[int]()
        faulty = {number for number in range(end - begin) if rows.fault(begin + number)} if rows.faults else set[int]()
        keys: Iterable[int | None] = itertools.repeat(None) if row_fault else usual.keys(texts, empty, faulty)
        for position, (text, key) in enumerate(zip(texts, keys, strict=False), start=begin):
            if key is None:
                key = _exact_key(rows, position, text, found, row_fault)  # noqa: PLW2901 - the key of the row
            elif empty and position - begin in empty:
                found.empty.add(position, rows.label(position), "")
            found.keys.append(key)
        advance(end - begin)
    bad, not_json = found.bad, found.not_json
    if not_json:
        count = counted(len(not_json), len(rows), "not JSON")
        described = not_json.described()
        remedy = f"correct {'it' if len(not_json) == 1 else 'them'}, or write the file again"
        if SECOND_VALUE in described:
            remedy = "write one object per line"
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: {described} ({count}); {remedy}.")
    explained = every_row_bad() if every_row_bad and len(bad) == len(rows) > 0 else None
    if explained:
        raise explained
    if bad and inputs.bad_rows == "Fail":
        raise _failed(rows, bad, name, inputs)
    kept_rows, kept_keys = replace(rows, finite=not found.non_finite), np.frombuffer(found.keys, dtype=np.int64)
    if bad:
        good_ones = _positions_without(rows, bad, name, inputs)
        kept_rows, kept_keys = kept_rows.select(good_ones), kept_keys[good_ones]
    return Checked(
        kept_rows,
        kept_keys,
        len(bad),
        "; ".join(bad.examples),
        _recorded(rows, found),
        tuple(_notes(found, kept_rows, kept_keys)),
        mapping="".join(ignored_note(found.ignored + usual.ignored)),
    )


def _recorded(rows: JsonLines, found: _Findings) -> tuple[BadRow, ...]:
    positions = found.bad.positions[: len(found.faults)]
    locations = rows.select(positions).locations().tolist()
    return tuple(BadRow(row, line, problem) for (row, line), problem in zip(locations, found.faults, strict=True))


def _exact_key(rows: JsonLines, position: int, text: bytes, found: _Findings, row_fault: RowFault | None) -> int:
    """Return the key of a row, and add its faults to ``found``; 0 for a row with a fault."""
    try:
        row = parse(text)
    except ValueError as error:
        found.not_json.add(position, rows.label(position), json_fault(error, text))
        return 0
    messages = list[Message]()
    try:
        problem = row_fault(row, text) if row_fault else None
        messages = [] if row_fault else read_row(row, text).messages
    except BadConversation as error:
        problem = str(error)
    problem = rows.fault(position) or problem
    if problem:
        found.bad.add(position, rows.label(position), problem)
        if len(found.faults) < RECORDED:
            found.faults.append(problem)
        return 0
    found.ignored.update(() if row_fault else ignored_columns(row))
    if has_empty_turn(messages):
        found.empty.add(position, rows.label(position), "")
    if may_have_non_finite(text) and has_non_finite(row):
        found.non_finite.add(position, rows.label(position), "")
    return hash(json.dumps(row, sort_keys=True)) if row_fault else messages_key(messages)


def _positions_without(rows: JsonLines, bad: FaultyRows, name: str, inputs: DatasetInputs) -> NDArray[np.int64]:
    """Return the positions of the rows that are not bad."""
    count = counted(len(bad), len(rows), "bad")
    every = len(bad) == len(rows)
    if not may_be_left_out(len(bad), len(rows), inputs.bad_rows_share):
        remedy = (
            "correct them"
            if every
            else f"correct them, or raise dataset.badRows.share to {sufficient_share(len(bad), len(rows)):g}"
        )
        raise StageError(
            reasons.BAD_ROW,
            f"{name}: {count}, more than dataset.badRows.share {inputs.bad_rows_share:g} allows: {bad.described()}; {remedy}.",
        )
    if every:
        raise StageError(reasons.DATASET_EMPTY, f"{name}: no row is left because {count}: {bad.described()}; correct them.")
    return np.delete(np.arange(len(rows)), bad.positions)


def _failed(rows: JsonLines, bad: FaultyRows, name: str, inputs: DatasetInputs) -> StageError:
    """Return the error for rows that must not be left out. If all rows are bad, leaving them out is no remedy."""
    remedy = f"correct {'it' if len(bad) == 1 else 'them'}"
    if len(bad) < len(rows):
        remedy += ", or leave bad rows out with dataset.badRows.policy Drop"
        if not may_be_left_out(len(bad), len(rows), inputs.bad_rows_share):
            # Stage tokenization may leave out more rows: a small share would only be enough for this stage.
            remedy += f" and dataset.badRows.share {max(_USUAL_SHARE, sufficient_share(len(bad), len(rows))):g}"
    count = counted(len(bad), len(rows), "bad")
    return StageError(reasons.BAD_ROW, f"{name}: {bad.described()} ({count}); {remedy}.")


def _notes(found: _Findings, rows: JsonLines, keys: NDArray[np.int64]) -> Iterator[str]:
    """Yield the warnings."""
    if found.non_finite:
        where = _rows(found.non_finite)
        yield f"{where} outside of messages and tools: NaN and infinite numbers are not JSON and are written as null."
    if found.empty:
        yield f"{_rows(found.empty)}: a message of the user is empty."
    yield from repeated_note(rows, keys)


def _rows(found: FaultyRows) -> str:
    return f"{len(found):,} row{'' if len(found) == 1 else 's'} ({found.named()})"
