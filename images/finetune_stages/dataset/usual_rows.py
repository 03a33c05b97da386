"""Fast check of usual rows with msgspec: what it accepts, :func:`finetune_stages.chat.structure.read_row` accepts, too.

It accepts nothing that needs a closer look. msgspec reads strict JSON, which is a subset of what Python reads: no NaN, no number beyond
what a float holds, no half of a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from finetune_stages.chat.structure import COLUMNS, INTERPRETED, BadConversation, Message, read_conversation

_MOST_COLUMNS = 64
_NAME = re.compile(r'[^"\\\x00-\x1f]*')
"""Names of columns that msgspec supports."""


class _Message(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


_Messages = Annotated[list[_Message], msgspec.Meta(min_length=1)]
_Nothing = Annotated[list[Any], msgspec.Meta(max_length=0)] | None
_UNSET = [(name, bool | None if name == "unmask" else _Nothing, None) for name in sorted(INTERPRETED - {"messages"})]
"""Columns that change nothing if they have these values."""


class UsualRows:
    """Check of rows whose messages have a role and text only.

    Other columns are learned from the rows that :meth:`keys` accepts; they are parsed and not interpreted.

    Attributes:
        ignored: columns without an effect, with the number of accepted rows that have a value in them.
    """

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()
        self._columns: set[str] = set()
        self._others: dict[str, str] = {}
        self._decode = self._decoder()

    def keys(self, texts: Iterable[bytes], empty: set[int], faulty: Container[int] = ()) -> list[int | None]:
        """Return the key of each good row (see :func:`messages_key`); ``None`` for rows that need the exact check.

        The positions of good rows with a blank message of the user are added to ``empty``. ``faulty`` are positions of rows with faults
        that their text does not show.
        """
        found: list[int | None] = []
        for position, text in enumerate(texts):
            if position in faulty:
                found.append(None)
                continue
            try:
                row = self._decode(text)
                messages = row.messages
            except (msgspec.DecodeError, RecursionError):
                found.append(self._key_of_other(text, position, empty))
                continue
            answered = blank = False
            for message in messages:
                content = message.content
                if message.role == "assistant":
                    if not content or content.isspace():
                        answered = False
                        break
                    answered = True
                elif (not content or content.isspace()) and message.role == "user":
                    blank = True
            found.append(hash(tuple(messages)) if answered else None)
            if blank and answered:
                empty.add(position)
            if answered and self._others:
                self.ignored.update(column for name, column in self._others.items() if has_value(getattr(row, name)))
        return found

    def _key_of_other(self, text: bytes, position: int, empty: set[int]) -> int | None:
        try:
            row = msgspec.json.decode(text)
            messages = read_conversation(row).messages
        except (msgspec.DecodeError, RecursionError, BadConversation):
            return None
        self._learn(row)
        self.ignored.update(ignored_columns(row))
        if has_empty_turn(messages):
            empty.add(position)
        return messages_key(messages)

    def _learn(self, columns: Iterable[str]) -> None:
        new = {column for column in columns if _NAME.fullmatch(column)} - self._columns - INTERPRETED
        if new and len(new) + len(self._columns) <= _MOST_COLUMNS:
            self._columns |= new
            self._decode = self._decoder()

    def _decoder(self) -> Any:
        """Return the decoder of a row with the known columns."""
        names = {f"column_{number}": column for number, column in enumerate(sorted(self._columns))}
        self._others = {name: column for name, column in names.items() if column not in COLUMNS}
        row = msgspec.defstruct(
            "Row",
            [("messages", _Messages), *_UNSET, *((name, Any, None) for name in names)],
            rename=names,
            gc=False,
            forbid_unknown_fields=True,
        )
        return msgspec.json.Decoder(row).decode


def ignored_columns(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the columns of a chat row that have a value without an effect."""
    return (column for column, value in row.items() if column not in COLUMNS and has_value(value))


def has_value(value: Any) -> bool:
    """Return whether a column has a value: not null, and no empty text or list."""
    return value not in (None, "", [])


def messages_key(messages: list[Message]) -> int:
    """Return a hash of normalized messages, 64 bits, which is equal for equal messages within this process."""
    if all(message.keys() == {"role", "content"} for message in messages):
        return hash(tuple(_Message(message["role"], message["content"]) for message in messages))
    return hash(json.dumps(messages, sort_keys=True))


def has_empty_turn(messages: list[Message]) -> bool:
    """Return whether a message of the user is blank."""
    return any(message["role"] == "user" and not message.get("content", "").strip() for message in messages)
