"""Recognition of a row's format by its columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from finetune_contract.row_formats import REQUIRED, RowFormat

from .columns import Columns

CONVERSATIONS = ("conversations", "conversation")
"""Default columns of format conversations."""


def recognized(row: Any, columns: Columns, candidates: Iterable[RowFormat]) -> RowFormat | None:
    """Return the first of some formats that a row is in; ``None`` if it is in none of them."""
    if not isinstance(row, dict):
        return None
    return next((one for one in candidates if _is_in(row, one, columns)), None)


def message_column(row: Mapping[str, Any], columns: Columns) -> str:
    """Return the column with the messages of a row in format conversations; the default is the first one that has a value."""
    stated = columns.name("messages")
    if columns.is_set("messages") or row.get(stated) is not None:
        return stated
    return next((column for column in CONVERSATIONS if row.get(column) is not None), CONVERSATIONS[0])


def _is_in(row: Mapping[str, Any], form: RowFormat, columns: Columns) -> bool:
    if form == "messages":
        stated = row.get(columns.name("messages"))
        return stated is not None and not isinstance(stated, str) and not _has_sender(stated)
    if form == "conversations":
        column = message_column(row, columns)
        stated = row.get(column)
        # Other text in messages is in no format: it does not show whether the messages of other rows are JSON text.
        is_unclear = column not in CONVERSATIONS and isinstance(stated, str) and not stated.lstrip().startswith("[")
        return stated is not None and not is_unclear
    return all(columns.name(field) in row for field in REQUIRED[form])


def _has_sender(messages: Any) -> bool:
    """Return whether messages have the keys of ShareGPT."""
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "from" in first and first.get("role") is None
