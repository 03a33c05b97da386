"""Chat rows to measure with: conversations of which every answer of the assistant is a question to the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_stages.kit import StageError

HOLDOUT = "holdout"
"""Name of the task that the held-out rows make."""

Row = dict[str, Any]
"""A row as stage *dataset* wrote it: ``messages``, a list of objects with ``role`` and ``content``."""


def read_rows(path: Path, remedy: str = "run stage dataset again") -> list[Row]:
    """The rows in which the assistant says something; none where the file is empty or missing. ``remedy`` mends a bad one.

    Raises:
        StageError: ``BadRow``: a line is no such row.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        rows = [_row(line, f"{path}, line {number}", remedy) for number, line in enumerate(lines, start=1) if line.strip()]
    return [row for row in rows if any(is_answer(message) for message in row["messages"])]


def is_answer(message: dict[str, Any]) -> bool:
    """Whether the message is text of the assistant (and not, say, a call of a tool)."""
    content = message.get("content")
    return message.get("role") == "assistant" and isinstance(content, str) and bool(content.strip())


def _row(line: str, place: str, remedy: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise StageError(reasons.BAD_ROW, f"{place}: not JSON ({error}); {remedy}.") from error
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise StageError(reasons.BAD_ROW, f"{place}: not an object with a list of messages; {remedy}.")
    return dict(row)
