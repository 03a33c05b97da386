"""Chat rows in files of the workspace, with their locations in the user's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.chat.structure import BadConversation, Conversation, read_row
from finetune_stages.sdk import Context, Seal, StageError, read_seal
from finetune_stages.sdk.identity import require_content, require_reported
from finetune_stages.sources.json_lines import open_rows
from finetune_stages.sources.json_text import json_fault, parse
from finetune_stages.sources.row_faults import row_label


@dataclass(frozen=True)
class RowFile:
    """A file of chat rows.

    Attributes:
        source: name of the user's file in messages.
        locations: int64, shape (rows, 2): row and line number in that file, both from 1; line 0 if it has no lines.
        texts: yields the rows' JSON text.
        form: messages, text or tokenised.
    """

    source: str
    locations: NDArray[np.int64]
    texts: Callable[[], Iterator[bytes]]
    form: str = "messages"

    def __len__(self) -> int:
        return len(self.locations)

    def location(self, position: int) -> tuple[int, int]:
        """Return the row and line number of a row in the user's file."""
        row, line = self.locations[position].tolist()
        return row, line

    def label(self, position: int) -> str:
        """Return a row's name in messages, without the source."""
        return row_label(*self.location(position))


def prepared_rows(context: Context) -> tuple[RowFile, RowFile, Seal]:
    """Return the training rows, the held-out rows, and the seal of their directory.

    Raises:
        StageError: ``DatasetNotFound``, ``ResultChanged``.
    """
    layout = context.layout
    seal = read_seal(context.path(layout.datasets))
    if seal is None:
        raise StageError(reasons.DATASET_NOT_FOUND, f"{layout.datasets}: it is not in the workspace; rerun from stage dataset.")
    if context.reads is not None:  # a training of an earlier round could write there
        require_reported(context, context.path(layout.datasets), seal, "dataset")
        require_content(context, context.path(layout.datasets), seal, "dataset")
    train = _file(context, layout.train_data, layout.train_locations, str(seal.note.get("source", "train.jsonl")))
    train = replace(train, form=str(seal.note.get("form", "messages")))
    held_out = _file(context, layout.eval_data, layout.eval_locations, str(seal.note.get("evalSource", "eval.jsonl")))
    held_out = replace(held_out, form=str(seal.note.get("evalForm", "messages")))
    return train, held_out, seal


def task_rows(path: Path, name: str) -> RowFile:
    """Return the rows of a task. The accepted formats are those of stage *dataset*.

    Raises:
        StageError: ``TaskInvalid``: the file is neither JSON nor JSON Lines, or has no rows.
    """
    try:
        rows = open_rows(path, path.name, lambda _more: None)
    except StageError as error:
        raise StageError(reasons.TASK_INVALID, f"evaluation.tasks: {name}: {error.message}") from error
    return RowFile(path.name, rows.locations(), rows.texts)


def read(text: bytes) -> Conversation:
    """Return the conversation of a row.

    Raises:
        BadConversation: The row is not JSON or has no usable conversation.
    """
    try:
        row: Any = parse(text)
    except ValueError as error:
        raise BadConversation(json_fault(error, text)) from error
    return read_row(row, text)


def _file(context: Context, data: str, locations: str, source: str) -> RowFile:
    path = context.path(data)
    if not path.is_file():
        raise StageError(reasons.DATASET_NOT_FOUND, f"{data}: it is not in the workspace; rerun from stage dataset.")
    return RowFile(source, np.load(context.path(locations)), lambda: _lines(path))


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:  # a carriage return inside a row does not end a line
        yield from lines
