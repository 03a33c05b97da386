"""Split of rows by the value of a column: ``dataset.splitBy`` stratified and grouped."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import parse
from finetune_stages.sources.json_values import listed
from finetune_stages.sources.row_faults import SHOWN, FaultyRows

from .near_duplicates import merged
from .split import TOLERATED, Parts, grouped, stratified

_LONGEST_VALUE = 40
_COLUMNS_SHOWN = 8
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def split_by_field(
    rows: JsonLines, name: str, column: str, inputs: DatasetInputs, together: NDArray[np.int64] | None = None
) -> tuple[Parts, tuple[str, ...]]:
    """Return the split by ``column``, stratified or grouped, and warnings about shares that it cannot have.

    ``together``: groups of rows that a grouped split keeps on one side, too, as numbers from 0 in the order of the rows.

    Raises:
        StageError: ``BadRow``: a row has no value to split by. ``ColumnNotFound``: no row has one. ``TooFewRows``: no row is left on one side.
    """
    labels, first = split_labels(rows, name, column)
    ratio = inputs.train_split
    if inputs.split_by == "stratified":
        parts = stratified(labels, ratio, inputs.seed)
        notes = _unrepresented(rows, column, labels, first, parts)
    else:
        labels = labels if together is None else merged(labels, together)
        parts = grouped(labels, ratio, inputs.seed)
        notes = _uneven(column, labels, ratio, parts)
    return parts, tuple(notes) if ratio < 1 else ()


def split_labels(rows: JsonLines, name: str, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each row's value, from 0 in the order of the rows, and for each value the position of its first row.

    Values are strings, finite numbers and booleans; 1, 1.0 and true differ. They are compared by a hash of 64 bits.

    Raises:
        StageError: ``BadRow``: a row has no such value. ``ColumnNotFound``: no row has one.
    """
    keys, unusable = array("q"), FaultyRows(logged=False)
    for position, text in enumerate(rows.texts()):
        value = _value(text, column)
        if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
            unusable.add(position, rows.label(position), "")
        keys.append(hash(json.dumps(value)))
    if len(unusable) == len(rows):
        raise _not_in_rows(rows, name, column)
    if unusable:
        verb = "has" if len(unusable) == 1 else "have"
        raise StageError(
            reasons.BAD_ROW,
            f"{name}: {unusable.named()} {verb} no string, number or boolean in column {column} ({len(unusable):,} of {len(rows):,} rows);"
            " correct the data, or set dataset.splitField to another column.",
        )
    _, first, inverse = np.unique(np.frombuffer(keys, dtype=np.int64), return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order))
    return numbers[inverse], first[order]


def _not_in_rows(rows: JsonLines, name: str, column: str) -> StageError:
    """Return the error for a column that no row can be split by, with the columns of the first row that can be used."""
    first = parse(next(iter(rows.texts())))
    usable = [each for each, value in first.items() if isinstance(value, (str, int, float))]
    choice = f"columns that have one are: {listed(usable, _COLUMNS_SHOWN)}" if usable else "set dataset.splitBy to random"
    return StageError(
        reasons.COLUMN_NOT_FOUND,
        f"dataset.splitField: no row of {name} has a string, number or boolean in column {column}; {choice}.",
    )


def _value(text: bytes, column: str) -> Any:
    try:
        found = _DECODER.decode(text).get(column)
    except msgspec.DecodeError:  # NaN in another column
        return parse(text).get(column)
    return None if found is None else json.loads(bytes(found))


def _unrepresented(
    rows: JsonLines, column: str, labels: NDArray[np.int64], first: NDArray[np.int64], parts: Parts
) -> Iterator[str]:
    """Yield a warning if values have too few rows to hold one out."""
    missing = np.flatnonzero(np.bincount(labels[parts[1]], minlength=len(first)) == 0)
    if len(missing):
        texts = rows.select(first[missing[:SHOWN]]).texts()
        shown = ", ".join(json.dumps(_value(text, column))[:_LONGEST_VALUE] for text in texts)
        more = ", ..." if len(missing) > SHOWN else ""
        yield (
            f"dataset.splitField: {len(missing):,} of {len(first):,} values of {column} have too few rows for a held-out one"
            f" ({shown}{more})."
        )


def _uneven(column: str, labels: NDArray[np.int64], ratio: float, parts: Parts) -> Iterator[str]:
    """Yield a warning if groups are too large for the share of held-out rows."""
    expected, held_out = (1 - ratio) * len(labels), len(parts[1])
    if abs(held_out - expected) > max(1, TOLERATED * expected):
        yield (
            f"dataset.splitField: {held_out:,} rows are held out and not {expected:,.0f}, because rows with the same {column} stay together;"
            f" the largest group has {np.bincount(labels).max():,} rows."
        )
