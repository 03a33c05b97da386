"""Every row is checked, and the bad ones fail the stage or are left out."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

import numpy as np

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_stages.chat.structure import fault
from finetune_stages.kit import StageError
from finetune_stages.sources.json_lines import JsonLines, Seen
from finetune_stages.sources.json_text import json_fault, may_hold_no_number, no_number, parse

SHOWN = 3
"""Rows that a message describes; it counts all."""
_STEP = 1000


@dataclass(frozen=True)
class Checked:
    """The good rows, how many were left out, and a few words on the first of those.

    Attributes:
        notes: sentences on what is published otherwise than it was found.
    """

    rows: JsonLines
    dropped: int = 0
    examples: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    """Positions of rows with a fault, and a few words on the first of them."""

    positions: array[int] = field(default_factory=lambda: array("q"))
    examples: list[str] = field(default_factory=list)

    def add(self, rows: JsonLines, position: int, problem: str) -> None:
        self.positions.append(position)
        if len(self.examples) < SHOWN:
            self.examples.append(f"{rows.label(position)} {problem}".strip())

    def __len__(self) -> int:
        return len(self.positions)


def check_rows(rows: JsonLines, name: str, inputs: DatasetInputs, seen: Seen) -> Checked:
    """Read all rows; ``seen`` is told how many more were read.

    Raises:
        StageError: ``DatasetUnreadable``: rows are no JSON, so the file is broken; they are never left out. ``BadRow``: rows are no
            chat rows (``bad_rows: Fail``), or more are not than ``bad_rows_share`` allows. ``DatasetEmpty``: none is left.
    """
    bad, not_json, no_numbers = _Found(), _Found(), _Found()
    for position, text in enumerate(rows.texts()):
        try:
            row = parse(text)
        except ValueError as error:
            not_json.add(rows, position, json_fault(error, text))
        else:
            problem = rows.fault(position) or fault(row, text)
            if problem:
                bad.add(rows, position, problem)
            elif may_hold_no_number(text) and no_number(row):
                no_numbers.add(rows, position, "")
        if not (position + 1) % _STEP:
            seen(_STEP)
    seen(len(rows) % _STEP)
    if not_json:
        counted = _counted(len(not_json), rows, "not JSON")
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: {_listed(not_json)}; write one object a line ({counted}).")
    if bad and inputs.bad_rows == "Fail":
        raise _failed(rows, bad, name)
    kept = _without(rows, bad, name, inputs) if bad else rows
    return Checked(kept, len(bad), "; ".join(bad.examples), _notes(no_numbers, name))


def _without(rows: JsonLines, bad: _Found, name: str, inputs: DatasetInputs) -> JsonLines:
    counted = _counted(len(bad), rows)
    every = len(bad) == len(rows)
    if len(bad) > inputs.bad_rows_share * len(rows):
        remedy = "correct them" if every else f"correct them, or raise the share to {_share(len(bad), len(rows)):g}"
        raise StageError(
            reasons.BAD_ROW,
            f"{name}: {counted}, more than dataset.badRows.share {inputs.bad_rows_share:g} allows: {_listed(bad)}; {remedy}.",
        )
    if every:
        raise StageError(reasons.DATASET_EMPTY, f"{name}: no row is left, {counted}: {_listed(bad)}; correct them.")
    return rows.select(np.delete(np.arange(len(rows)), bad.positions))


def _failed(rows: JsonLines, bad: _Found, name: str) -> StageError:
    """The failure of rows that may not be left out. The remedy is one that works: where all are bad none may be left out."""
    remedy = f"correct {'it' if len(bad) == 1 else 'them'}"
    if len(bad) < len(rows):
        remedy += f", or leave bad rows out with dataset.badRows (policy Drop, share {_share(len(bad), len(rows)):g})"
    return StageError(reasons.BAD_ROW, f"{name}: {_listed(bad)} ({_counted(len(bad), rows)}); {remedy}.")


def _listed(found: _Found) -> str:
    return "; ".join(found.examples) + ("; ..." if len(found) > SHOWN else "")


def _counted(count: int, rows: JsonLines, what: str = "bad") -> str:
    return f"{count:,} of {len(rows):,} rows {'is' if count == 1 else 'are'} {what}"


def _share(count: int, total: int) -> float:
    """The smallest share of two significant digits that lets ``count`` rows of ``total`` be left out."""
    digits = 1 - math.floor(math.log10(count / total))
    scale: float = 10**digits
    return min(1.0, round(math.ceil(count / total * scale) / scale, digits))


def _notes(no_numbers: _Found, name: str) -> tuple[str, ...]:
    if not no_numbers:
        return ()
    count, rows = len(no_numbers), ", ".join(no_numbers.examples) + (", ..." if len(no_numbers) > SHOWN else "")
    plural = "" if count == 1 else "s"
    where = f"{count:,} row{plural} ({rows})"
    return (f"{name}: {where} outside of messages and tools: NaN or Infinity, which JSON does not have, is written as null.",)
