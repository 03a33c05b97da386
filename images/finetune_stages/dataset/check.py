"""Check of every row: bad rows fail the stage or are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_contract.row_formats import RowFormat
from finetune_stages.chat.structure import fault
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import Advance, JsonLines
from finetune_stages.sources.json_text import has_non_finite, json_fault, may_have_non_finite, parse
from finetune_stages.sources.row_faults import FaultyRows, counted, may_be_left_out, sufficient_share

_STEP = 1000


@dataclass(frozen=True)
class Checked:
    """The good rows, the number of rows that were left out, and descriptions of the first of those.

    Attributes:
        notes: warnings about values that are published in another form, without the name of the source.
        form: form in which the rows are published: messages, text or tokenised.
        mapping: description of what was converted; empty if the rows are published as they are.
    """

    rows: JsonLines
    dropped: int = 0
    examples: str = ""
    notes: tuple[str, ...] = ()
    form: RowFormat = "messages"
    mapping: str = ""


def check_rows(
    rows: JsonLines, name: str, inputs: DatasetInputs, advance: Advance, row_fault: Callable[[Any, bytes], str | None] = fault
) -> Checked:
    """Check all rows; ``advance`` is called with the number of rows read, ``row_fault`` returns the fault of a row.

    Raises:
        StageError: ``DatasetUnreadable``: rows are not JSON, so the file is damaged; they are never left out. ``BadRow``: rows are not
            chat rows (``bad_rows: Fail``), or more of them than ``bad_rows_share`` allows. ``DatasetEmpty``: no row is left.
    """
    bad, not_json, non_finite = FaultyRows(), FaultyRows(), FaultyRows()
    for position, text in enumerate(rows.texts()):
        try:
            row = parse(text)
        except ValueError as error:
            not_json.add(position, rows.label(position), json_fault(error, text))
        else:
            problem = rows.fault(position) or row_fault(row, text)
            if problem:
                bad.add(position, rows.label(position), problem)
            elif may_have_non_finite(text) and has_non_finite(row):
                non_finite.add(position, rows.label(position), "")
        if not (position + 1) % _STEP:
            advance(_STEP)
    advance(len(rows) % _STEP)
    if not_json:
        count = counted(len(not_json), len(rows), "not JSON")
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: {not_json.described()}; write one object per line ({count}).")
    if bad and inputs.bad_rows == "Fail":
        raise _failed(rows, bad, name)
    kept = _without(rows, bad, name, inputs) if bad else rows
    return Checked(kept, len(bad), "; ".join(bad.examples), _notes(non_finite))


def _without(rows: JsonLines, bad: FaultyRows, name: str, inputs: DatasetInputs) -> JsonLines:
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
    return rows.select(np.delete(np.arange(len(rows)), bad.positions))


def _failed(rows: JsonLines, bad: FaultyRows, name: str) -> StageError:
    """Return the error for rows that must not be left out. If all rows are bad, leaving them out is no remedy."""
    remedy = f"correct {'it' if len(bad) == 1 else 'them'}"
    if len(bad) < len(rows):
        share = sufficient_share(len(bad), len(rows))
        remedy += f", or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share {share:g}"
    count = counted(len(bad), len(rows), "bad")
    return StageError(reasons.BAD_ROW, f"{name}: {bad.described()} ({count}); {remedy}.")


def _notes(non_finite: FaultyRows) -> tuple[str, ...]:
    if not non_finite:
        return ()
    plural = "" if len(non_finite) == 1 else "s"
    where = f"{len(non_finite):,} row{plural} ({non_finite.named()})"
    return (f"{where} outside of messages and tools: NaN and Infinity are not JSON and are written as null.",)
