"""Conversion of a row to the form that is published: ``messages``, ``text``, or ``input_ids`` and ``labels``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract.row_formats import REQUIRED, RowFormat
from finetune_stages.sources.json_values import kind, listed, shown

from .columns import FORMATS, Columns
from .messages import Message, Reader, RowFault, decoded, with_context
from .recognition import message_column, recognized

_KEYS_SHOWN = 8
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Converted:
    """A converted row.

    Attributes:
        values: the columns that the conversion makes, by name. The row keeps its other columns, except ``used``.
        used: the columns of the source that ``values`` were made from.
        renamed: names of roles that were mapped to another name, each with that name.
    """

    values: dict[str, Any]
    used: tuple[str, ...]
    renamed: frozenset[tuple[str, str]] = frozenset()


def needs_conversion(form: RowFormat, columns: Columns) -> bool:
    """Return whether rows in a format are converted, if only to count their columns, or published as they are."""
    return form != "messages" or bool(columns.named)


def converted(row: Any, form: RowFormat, columns: Columns) -> Converted:
    """Return the published form of a row of a source in the format ``form``.

    Raises:
        RowFault: The row is in another format, or faulty.
    """
    if not isinstance(row, dict):
        raise RowFault(f"is {kind(row)}, not an object")
    _require_columns(row, form, columns)
    return _CONVERSIONS[form](row, columns)


def _require_columns(row: Row, form: RowFormat, columns: Columns) -> None:
    """Raise a fault if a required column is missing or null."""
    needed = [columns.name(field) for field in REQUIRED[form]]
    if form == "conversations":
        needed = [message_column(row, columns)]
    missing = next((column for column in needed if row.get(column) is None), None)
    if missing is None:
        return
    partly = any(row.get(column) is not None for column in needed)
    other = None if partly or columns.named else recognized(row, columns, FORMATS)
    if other and other != form:
        raise RowFault(f"is in format {other}, not {form}")
    if missing in row:
        raise RowFault(f"has a column {missing} that is null")
    raise RowFault(
        f"has no {missing} (its keys are: {listed(list(row), _KEYS_SHOWN)})" if row else f"has no {missing} (it is empty)"
    )


def _messages(row: Row, columns: Columns) -> Converted:
    """Format messages with columns or keys of other names: only the names change."""
    column = columns.name("messages")
    reader = Reader(columns.fields.role, columns.fields.content, maps_roles=False)
    messages = reader.read(row[column], column)
    if not columns.is_set("system"):  # stage tokenization reports the column
        return _chat(row, columns, messages, (column,))
    return _chat_with_system(row, columns, messages, (column,))


def _conversations(row: Row, columns: Columns) -> Converted:
    column = message_column(row, columns)
    reader = Reader(columns.fields.role, columns.fields.content)
    messages = reader.read(row[column], column)
    return _chat_with_system(row, columns, messages, (column,), reader)


def _alpaca(row: Row, columns: Columns) -> Converted:
    """The question is instruction and input, on two lines; rounds of the history come first and are learned, too."""
    instruction, given, output, history = (columns.name(name) for name in ("instruction", "input", "output", "history"))
    question = "\n".join(filter(None, (_text(row, instruction), _text(row, given))))
    if not question.strip():
        raise RowFault(f"has an empty {instruction}")
    answer = _text(row, output)
    if not answer.strip():
        raise RowFault(f"has an empty {output}")
    messages = [*_rounds(row.get(history), history), *_round(question, answer)]
    return _chat_with_system(row, columns, messages, tuple(name for name in (instruction, given, output, history) if name in row))


def _prompt_completion(row: Row, columns: Columns) -> Converted:
    """Text is a question or its answer; a list has messages, of which the completion's are learned."""
    prompt, completion = columns.name("prompt"), columns.name("completion")
    if row.get("label") is False:
        raise RowFault("has label false, which marks its completion as an undesired one (KTO)")
    reader = Reader()
    messages = [*with_context(_side(row, prompt, "user", reader)), *_side(row, completion, "assistant", reader)]
    return _chat_with_system(row, columns, messages, (prompt, completion), reader)


def _side(row: Row, column: str, role: str, reader: Reader) -> list[Message]:
    """Return the messages of a prompt or a completion."""
    stated = row[column]
    if isinstance(stated, list):
        return reader.read(stated, column)
    if isinstance(stated, dict):
        return reader.read([stated], column)
    content = _text(row, column)
    if not content.strip():
        raise RowFault(f"has an empty {column}")
    return [{"role": role, "content": content}]


def _document(row: Row, columns: Columns) -> Converted:
    column = columns.name("text")
    return Converted({"text": _text(row, column)}, (column,))


def _tokens(row: Row, columns: Columns) -> Converted:
    ids, labels = columns.name("input_ids"), columns.name("labels")
    named = {"input_ids": ids, "labels": labels, "attention_mask": "attention_mask"}
    values = {name: row[column] for name, column in named.items() if row.get(column) is not None}
    return Converted(values, tuple(column for column in named.values() if column in row))


_CONVERSIONS: dict[RowFormat, Callable[[Row, Columns], Converted]] = {
    "messages": _messages, "conversations": _conversations, "alpaca": _alpaca, "prompt-completion": _prompt_completion,
    "tokenised": _tokens, "text": _document,
}  # fmt: skip


def _rounds(stated: Any, column: str) -> Iterator[Message]:
    """Yield the messages of a history: a list of pairs of a question and its answer."""
    history = decoded(stated or [], column)
    if not isinstance(history, list):
        raise RowFault(f"has a column {column} that is {kind(history)}, not a list of pairs")
    for number, pair in enumerate(history, start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part.strip() for part in pair):
            raise RowFault(
                f"has a column {column} whose entry {number} is not a pair of a question and its answer: {shown(pair)}"
            )
        yield from _round(*pair)


def _round(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _text(row: Row, column: str) -> str:
    """Return the text in a column; null and a missing column are empty."""
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise RowFault(f"has a column {column} that is {kind(value)}, not a string")
    return value or ""


def _chat_with_system(
    row: Row, columns: Columns, messages: list[Message], used: tuple[str, ...], reader: Reader | None = None
) -> Converted:
    """Return a conversation that begins with the text in the column of the system message."""
    column = columns.name("system")
    system = _text(row, column)
    used = (*used, column) if column in row else used
    if not system.strip():
        return _chat(row, columns, messages, used, reader)
    first = messages[0]
    if first["role"] != "system":
        return _chat(row, columns, [{"role": "system", "content": system}, *messages], used, reader)
    if first["content"] != system:
        raise RowFault(f"has a system message and another one in the column {column}")
    return _chat(row, columns, messages, used, reader)


def _chat(row: Row, columns: Columns, messages: list[Message], used: tuple[str, ...], reader: Reader | None = None) -> Converted:
    values: dict[str, Any] = {"messages": messages}
    if columns.is_set("tools"):
        column = columns.name("tools")
        values["tools"] = row.get(column)
        used = (*used, column)
    return Converted(values, used, frozenset(reader.renamed) if reader else frozenset())
