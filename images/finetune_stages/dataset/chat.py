"""What a chat row is: an object with ``messages``, each with a role and its text, at least one of them from the assistant."""

from __future__ import annotations

import json
from typing import Any

ROLES = ("system", "user", "assistant", "function", "tool")
"""The roles that the OpenShift AI pipelines know."""

_KEYS_SHOWN = 8
_ALPACA = ("instruction", "output")
_KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def fault(row: Any) -> str | None:
    """What is wrong with a row, to stand behind "row 17"; ``None`` for a good one."""
    if not isinstance(row, dict):
        return f"is {_kind(row)}, not an object with messages"
    messages = row.get("messages")
    if messages is None:
        return _without_messages(row)
    if not isinstance(messages, list):
        return f"has messages that are {_kind(messages)}, not a list"
    if not messages:
        return "has an empty list of messages"
    answered = False
    for number, message in enumerate(messages, start=1):
        problem = _message_fault(message)
        if problem:
            return f"has a faulty message {number}: {problem}"
        answered = answered or message["role"] == "assistant"
    return None if answered else "has no message of the assistant, so there is nothing to learn from it"


def broken_text(row: Any, text: bytes) -> str | None:
    """What is wrong with a row's characters: an escape may stand for half a character, which no tokenizer can take."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return None
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        return f"holds half a character: \\u{half:04x} without the other half of its surrogate pair"
    return None


def _message_fault(message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"it is {_kind(message)}, not an object with role and content"
    role = message.get("role")
    if role is None:
        return "it has no role" + (" (from and value are ShareGPT's keys)" if "from" in message else "")
    if role not in ROLES:
        return f"its role {_short(role)} is none of {', '.join(ROLES)}"
    content = message.get("content")
    if isinstance(content, str):
        if role == "assistant" and not content.strip() and not message.get("tool_calls"):
            return "the assistant says nothing"
        return None
    if content is None:
        return None if message.get("tool_calls") else "it has no content"
    return f"its content is {_kind(content)}, not a string"


def _without_messages(row: dict[str, Any]) -> str:
    if isinstance(row.get("conversations"), list):
        return "looks like ShareGPT (conversations); this release reads messages with role and content"
    if all(key in row for key in _ALPACA):
        return "looks like Alpaca (instruction, output); this release reads messages with role and content"
    shown = [key if key.isprintable() else ascii(key) for key in list(row)[:_KEYS_SHOWN]]
    keys = ", ".join(key[:40] for key in shown) + (", ..." if len(row) > _KEYS_SHOWN else "")
    return f"has no messages (its keys are: {keys})" if row else "has no messages (it is empty)"


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else f"{text[:37]}..."
