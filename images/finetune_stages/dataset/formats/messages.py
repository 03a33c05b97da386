"""Messages of formats conversations and prompt-completion: keys and names of roles of many data sets, as role and content."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from finetune_stages.chat.structure import message_fault
from finetune_stages.sources.json_values import kind, shown

Message = dict[str, Any]

CALL = "call"
"""A role whose content is a tool call of the assistant: LLaMA-Factory's ``function_call``."""
_NAMES = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bard", "bing", "claude", "model", "ai", "bot", "chatbot"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "ipython", "tool_response", "tool_result", "function_response", "function_result"),
    CALL: ("function_call", "tool_call"),
}  # fmt: skip
ROLES = {name: role for role, names in _NAMES.items() for name in names}
"""The role of a message by its name in data sets. Case, spaces and hyphens do not matter."""


class RowFault(ValueError):
    """A row cannot be converted; the text completes a sentence that begins with "row 17"."""


@dataclass(frozen=True)
class Reader:
    """Reader of lists of messages.

    Attributes:
        role_key, content_key: keys of a message; by default ``role`` or ``from``, and ``content`` or ``value``.
        maps_roles: whether names of roles are mapped by :data:`ROLES`.
        renamed: the names of roles that were mapped, each with what it was mapped to.
    """

    role_key: str | None = None
    content_key: str | None = None
    maps_roles: bool = True
    renamed: set[tuple[str, str]] = field(default_factory=set)

    def read(self, stated: Any, column: str) -> list[Message]:
        """Return the messages in a column: a list, or its JSON text.

        Raises:
            RowFault: The column or one of its messages is faulty.
        """
        stated = decoded(stated, column)
        if not isinstance(stated, list):
            raise RowFault(f"has a column {column} that is {kind(stated)}, not a list of messages")
        if not stated:
            raise RowFault(f"has a column {column} with an empty list")
        messages = []
        for number, each in enumerate(stated, start=1):
            try:
                messages.append(self._message(each))
            except RowFault as error:
                raise RowFault(f"has a faulty message {number} in {column}: {error}") from error
        return messages

    def _message(self, stated: Any) -> Message:
        if not isinstance(stated, dict):
            raise RowFault(f"it is {kind(stated)}, not an object")
        message = dict(stated)
        role = self._role(_taken(message, self._keys(self.role_key, "role", "from")))
        content = _taken(message, self._keys(self.content_key, "content", "value"))
        if role == CALL:
            found = {"role": "assistant", **message, "tool_calls": _calls(content, message)}
        else:
            found = {"role": role, **({} if content is None else {"content": content}), **message}
        problem = message_fault(found)
        if problem:
            raise RowFault(problem)
        return found

    def _keys(self, stated: str | None, *defaults: str) -> tuple[str, ...]:
        return (stated,) if stated else defaults

    def _role(self, stated: Any) -> Any:
        if not self.maps_roles or not isinstance(stated, str):
            return stated
        role = ROLES.get(stated.strip().lower().replace("-", "_").replace(" ", "_"))
        if role is None:
            raise RowFault(f"its role {shown(stated)} is not known; use user, assistant, system or tool")
        if role != stated:
            self.renamed.add((stated, "a tool call" if role == CALL else role))
        return role


def with_context(messages: list[Message]) -> list[Message]:
    """Return messages of a prompt: those of the assistant are context and not learned, unless they state otherwise."""
    stated = ("weight", "train", "training", "loss")
    return [
        {**message, "weight": 0} if message["role"] == "assistant" and not any(key in message for key in stated) else message
        for message in messages
    ]


def decoded(value: Any, column: str) -> Any:
    """Return a value with JSON text decoded.

    Raises:
        RowFault: The text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RowFault(f"has a column {column} with text that is not a JSON list: {shown(value)}") from None


def _taken(message: Message, keys: Iterable[str]) -> Any:
    """Remove keys from a message and return their value, which must be the same for all of them."""
    found = {key: message.pop(key) for key in keys if key in message}
    values = [value for value in found.values() if value is not None]
    if any(value != values[0] for value in values[1:]):
        raise RowFault(f"its {' and '.join(found)} contradict each other")
    return values[0] if values else None


def _calls(content: Any, message: Message) -> list[dict[str, Any]]:
    """Return the tool calls in the content of a message: an object with name and arguments, a list of them, or JSON text."""
    if message.get("tool_calls"):
        raise RowFault("it has tool_calls in addition to the tool call in its content; keep one")
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            raise RowFault(f"its tool call is not JSON: {shown(content)}") from None
    calls = content if isinstance(content, list) else [content]
    if not calls or not all(isinstance(call, dict) for call in calls):
        raise RowFault("its tool call is not an object with name and arguments, or a list of them")
    return [call if "function" in call else {"type": "function", "function": call} for call in calls]
