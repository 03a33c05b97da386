"""The error for a source in which no row has the columns of its format, with the field to set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_contract import reasons
from finetune_contract.codec import camel
from finetune_contract.row_formats import REQUIRED, RowFormat
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import parse
from finetune_stages.sources.json_values import listed

from .columns import FORMATS, Columns
from .recognition import CONVERSATIONS, message_column, recognized

_SHOWN = 8
_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns"),
    "prompt": ("prompt", "question", "query", "instruction", "input", "user", "source"),
    "completion": ("completion", "answer", "response", "output", "assistant", "target", "reply"),
    "instruction": ("instruction", "prompt", "question", "query"),
    "output": ("output", "response", "answer", "completion"),
    "text": ("text", "document", "body", "content"),
    "input_ids": ("input_ids", "tokens"),
}
"""Names that columns of a field have in public data sets, in lower case, the most frequent one first."""


def missing_columns(rows: JsonLines, name: str, form: RowFormat, columns: Columns, *, is_declared: bool) -> StageError | None:
    """Return the error if no row is an object with all columns of its format; ``None`` if one has them. All rows are read.

    ``is_declared``: ``dataset.format`` is set.
    """
    first = _first_object(rows)
    if first is None or any(_has_columns(text, form, columns) for text in rows.texts()):
        return None
    position, row = first
    if is_declared and recognized(row, columns, FORMATS):  # the fault of the row names its format
        return None
    there = f"the columns of {rows.label(position)} are: {listed(list(row), _SHOWN)}"
    if not is_declared and not columns.named:
        known = "; ".join(CONVERSATIONS[0] if each == "conversations" else " and ".join(REQUIRED[each]) for each in FORMATS)
        return StageError(
            reasons.COLUMN_NOT_FOUND, f"{name}: no row has the columns of a format ({known}); {there}; {_mapping(row)}."
        )
    needed = {field: _column(row, field, form, columns) for field in REQUIRED[form]}
    missing = {field: column for field, column in needed.items() if column not in row}
    if not missing:  # the first row has them, in a form that is not read
        return None
    other = ", or set dataset.format to the format of the rows" if is_declared else ""
    what = f"column{'s' if len(missing) > 1 else ''} {' and '.join(missing.values())}"
    return StageError(
        reasons.COLUMN_NOT_FOUND,
        f"{name}: no row has the {what} of format {form}; {there}; set {_fixes(row, missing, columns, set(needed.values()))}{other}.",
    )


def _first_object(rows: JsonLines) -> tuple[int, dict[str, Any]] | None:
    """Return position and value of the first row if it is an object with columns; ``None`` for any other row."""
    text = next(iter(rows.texts()), None)
    row = None if text is None else parse(text)
    return (0, row) if isinstance(row, dict) and row else None


def _has_columns(text: bytes, form: RowFormat, columns: Columns) -> bool:
    row = parse(text)
    return isinstance(row, dict) and all(_column(row, field, form, columns) in row for field in REQUIRED[form])


def _column(row: dict[str, Any], field: str, form: RowFormat, columns: Columns) -> str:
    return message_column(row, columns) if form == "conversations" else columns.name(field)


def _mapping(row: dict[str, Any]) -> str:
    """Return the proposal for rows without any column of a format."""
    for fields in (("messages",), ("prompt", "completion"), ("text",)):
        found = {field: _usual(row, field, set()) for field in fields}
        if all(found.values()):
            return f"set dataset.fields to {{{', '.join(f'{field}: {column}' for field, column in found.items())}}}"
    nested = next(
        (column for column, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)), None
    )
    if nested:
        return f"if the objects in {nested} are the rows, write each on a line of its own"
    return "set dataset.fields to the columns to read, such as {prompt: COLUMN, completion: COLUMN}, {messages: COLUMN} or {text: COLUMN}"


def _fixes(row: dict[str, Any], missing: Mapping[str, str], columns: Columns, used: set[str]) -> str:
    """Return the assignments of the fields whose columns are missing."""
    usual = {field: None if columns.is_set(field) else _usual(row, field, used) for field in missing}
    paths = {field: f"dataset.fields.{camel(field)}" for field in missing}
    if all(usual.values()):
        return " and ".join(f"{paths[field]} to {column}" for field, column in usual.items())
    return f"{' and '.join(paths.values())} to {'columns' if len(paths) > 1 else 'a column'} of the rows"


def _usual(row: dict[str, Any], field: str, used: set[str]) -> str | None:
    """Return the column with a usual name of a field that has a value of its type."""
    kind = list if field in ("messages", "input_ids") else str
    named = {column.lower(): column for column, value in row.items() if isinstance(value, kind) and column not in used}
    return next((named[name] for name in _USUAL_NAMES[field] if name in named), None)
