"""Rendered conversations of stage *tokenization*, with the positions of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import EvaluationInputs
from finetune_contract.workspace import HOLDOUT
from finetune_stages.chat.task_rows import chat_files, own_roots
from finetune_stages.sdk import Context, StageError, read_seal

Row = dict[str, Any]
"""``row`` and ``line`` in the source, and ``passages``, each with ``text`` and ``answers`` (half-open character ranges)."""


def chat_tasks(context: Context, inputs: EvaluationInputs) -> dict[str, Path]:
    """Return the files of rendered rows by task: the held-out rows, and tasks that are files of chat rows.

    Raises:
        StageError: ``DatasetNotFound``: there are no rendered rows.
    """
    layout = context.layout
    own = chat_files(own_roots(inputs.task_files), inputs.tasks)
    if (inputs.holdout or own) and read_seal(context.path(layout.tokens)) is None:
        other = "" if own else ", or set evaluation.holdout to false"
        raise StageError(
            reasons.DATASET_NOT_FOUND, f"{layout.tokens}: it is not in the workspace; rerun from stage evaluation{other}."
        )
    names: Sequence[str] = (*([HOLDOUT] if inputs.holdout else []), *own)
    return {name: path for name in names if (path := context.path(layout.passages(name))).is_file()}


def read_passages(path: Path) -> list[Row]:
    """Return the rows of a file.

    Raises:
        StageError: ``DatasetUnreadable``: stage *tokenization* did not write it.
    """
    try:
        with path.open("rb") as lines:
            rows = [json.loads(line) for line in lines]
        for row in rows:
            for passage in row["passages"]:
                _ = passage["text"][0], [(int(start), int(end)) for start, end in passage["answers"]]
    except (ValueError, LookupError, TypeError) as error:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{path}: it cannot be read ({error}); rerun from stage evaluation."
        ) from error
    return rows


def answers(row: Row) -> list[str]:
    """Return the scored texts."""
    return [passage["text"][start:end] for passage in row["passages"] for start, end in passage["answers"]]
