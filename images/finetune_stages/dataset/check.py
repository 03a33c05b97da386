"""Every row is checked, and the bad ones fail the stage or are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_stages.chat.structure import broken_text, fault
from finetune_stages.kit import StageError

from .json_lines import JsonLines, parse, unreadable

_SHOWN = 3
_STEP = 1000


@dataclass(frozen=True)
class Checked:
    """The good rows, how many were left out, and a few words on the first of those."""

    rows: JsonLines
    dropped: int = 0
    examples: str = ""


def check_rows(rows: JsonLines, name: str, inputs: DatasetInputs, seen: Callable[[int], object]) -> Checked:
    """Read all rows; ``seen`` is told how many more were read.

    Raises:
        StageError: ``DatasetUnreadable``: a row is no JSON. ``BadRow``: a row is no chat row (``bad_rows: Fail``), or more are
            not than ``bad_rows_share`` allows. ``DatasetEmpty``: none is left.
    """
    bad: list[int] = []
    examples: list[str] = []
    for position, text in enumerate(rows.texts()):
        try:
            row = parse(text)
        except ValueError as error:
            raise unreadable(name, rows.label(position), error) from error
        problem = fault(row) or broken_text(row, text)
        if problem:
            bad.append(position)
            if len(examples) < _SHOWN:
                examples.append(f"{rows.label(position)} {problem}")
        if not (position + 1) % _STEP:
            seen(_STEP)
    seen(len(rows) % _STEP)
    return _judge(rows, bad, examples, name, inputs) if bad else Checked(rows)


def _judge(rows: JsonLines, bad: list[int], examples: list[str], name: str, inputs: DatasetInputs) -> Checked:
    counted = f"{len(bad):,} of {len(rows):,} rows {'is' if len(bad) == 1 else 'are'} bad"
    if inputs.bad_rows == "Fail":
        raise StageError(
            reasons.BAD_ROW, f"{name}: {examples[0]} ({counted}); correct it, or leave bad rows out with dataset.badRows."
        )
    if len(bad) > inputs.bad_rows_share * len(rows):
        raise StageError(
            reasons.BAD_ROW,
            f"{name}: {counted}, more than dataset.badRows.share {inputs.bad_rows_share:g} allows; {'; '.join(examples)}.",
        )
    if len(bad) == len(rows):
        raise StageError(reasons.DATASET_EMPTY, f"{name} has no row left: {counted}; {examples[0]}.")
    return Checked(rows.select(np.delete(np.arange(len(rows)), bad)), len(bad), "; ".join(examples))
