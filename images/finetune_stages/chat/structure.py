"""Structure of a chat row: an object with ``messages``, each with a role and text, at least one of them from the assistant.

:func:`read_conversation` normalizes these variants:

- ``tools``, ``tool_calls`` and the ``arguments`` of a call may be JSON text, as in columns of a fixed type;
- ``content`` may be a list of text parts, which are joined without a separator, as chat templates do;
- ``function_call``, ``functions`` and the role ``function`` are the older form of tools in OpenAI's API;
- the role ``developer`` is OpenAI's newer name of ``system``;
- ``weight`` (OpenAI), ``train``, ``training`` (Axolotl) and ``loss`` (ms-swift, XTuner) state whether a message is learned (0 or 1).

Blank text instead of JSON means no value, as in columns of CSV and Parquet. Unusable content is rejected (:class:`BadConversation`) or
listed in :attr:`Conversation.unused`; nothing is dropped silently. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from finetune_stages.sources.json_text import non_finite_fault
from finetune_stages.sources.json_values import kind as _kind
from finetune_stages.sources.json_values import listed
from finetune_stages.sources.json_values import shown as _short

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "function", "tool")
"""Roles of the OpenShift AI pipelines, and ``developer``."""
_SAME = {"function": "tool", "developer": "system"}
"""Roles with another name in chat templates: the older name of ``tool``, and the newer name of ``system`` in OpenAI's API."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message's reasoning, in transformers' order of precedence."""

_LEARNED = ("weight", "train", "training", "loss")
_MASKS = ("mask", "masked", "loss_mask", "train_detail", "loss_scale")
"""Keys of other trainers for the learned parts; their values have no common meaning."""
_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_UNUSED = ("parallel_tool_calls", "tool_choice", "documents", "system")
"""Keys of a row that affect the prompt in other trainers and are ignored here."""
_READ = ("messages", "tools", "functions", "unmask", "chat_template_kwargs")
COLUMNS = frozenset((*_READ, *_UNUSED, *_MEDIA))
"""Columns of a row that have an effect, or that are reported or rejected if they have a value."""
INTERPRETED = frozenset((*_READ, *_MEDIA))
"""Keys of a row that :func:`read_conversation` interprets."""
_RESERVED = frozenset(("messages", "tools", "documents", "add_generation_prompt", "conversations", "chat_template"))
_KEYS_SHOWN = 8
_ALPACA = ("instruction", "output")


class BadConversation(ValueError):
    """A row is not a usable conversation; the text completes a sentence that begins with "row 17"."""


@dataclass(frozen=True)
class Conversation:
    """A normalized chat row.

    Attributes:
        messages: with ``role`` and text ``content`` (missing if there is none); keys without a value are left out.
        weights: for each message, whether the row states that it is learned; ``None`` if it does not state it.
        tools: JSON schemas of the functions that the assistant may call.
        unmask: whether the row states that all messages but the system's are learned.
        arguments: values for the chat template (``chat_template_kwargs``).
        unused: keys of the row that have no effect, as error messages name them.
    """

    messages: list[Message]
    weights: list[bool | None]
    tools: list[dict[str, Any]] | None = None
    unmask: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()

    def learned(self, unmask: bool) -> list[bool]:
        """Return whether each message is learned: those of the assistant, or all but the system's, except messages with weight 0."""
        everything = unmask or self.unmask
        return [
            weight is not False and (message["role"] == "assistant" or (everything and message["role"] != "system"))
            for message, weight in zip(self.messages, self.weights, strict=True)
        ]

    def not_honored(self, unmask: bool) -> bool:
        """Return whether a message with weight 1 is not learned because it is not the assistant's."""
        return any(weight and not learned for weight, learned in zip(self.weights, self.learned(unmask), strict=True))


def fault(row: Any, text: bytes = b"") -> str | None:
    """Return the fault of a row, to follow "row 17"; ``None`` for a good row. ``text``: see :func:`read_row`."""
    try:
        read_row(row, text)
    except BadConversation as error:
        return str(error)
    return None


def message_fault(message: Any) -> str | None:
    """Return the fault of one message, to follow "faulty message 2:"; ``None`` for a good one."""
    try:
        _message(message)
    except BadConversation as error:
        return str(error)
    return None


def read_row(row: Any, text: bytes) -> Conversation:
    """Return the conversation of a row with the JSON ``text``, whose characters and numbers are checked, too.

    Raises:
        BadConversation: The row has no usable conversation.
    """
    conversation = read_conversation(row)
    problem = broken_text(row, text) or non_finite_fault(row, text)
    if problem:
        raise BadConversation(problem)
    return conversation


def read_conversation(row: Any) -> Conversation:
    """Return the conversation of a row.

    Raises:
        BadConversation: The row has no usable conversation.
    """
    if not isinstance(row, dict):
        raise BadConversation(f"is {_kind(row)}, not an object with messages")
    stated = row.get("messages")
    if stated is None:
        raise BadConversation(_without_messages(row))
    if not isinstance(stated, list):
        raise BadConversation(f"has messages that are {_kind(stated)}, not a list")
    if not stated:
        raise BadConversation("has an empty list of messages")
    messages, weights = [], []
    for number, each in enumerate(stated, start=1):
        try:
            message, learned = _message(each)
        except BadConversation as error:
            raise BadConversation(f"has a faulty message {number}: {error}") from error
        messages.append(message)
        weights.append(learned)
    if not any(message["role"] == "assistant" for message in messages):
        raise BadConversation("has no message of the assistant, so there is nothing to learn from it")
    media = next((key for key in _MEDIA if row.get(key)), None)
    if media:
        raise BadConversation(f"has {media}, and only text can be trained on")
    return Conversation(
        messages, weights, _tools(row), _unmask(row), _arguments(row),
        frozenset(_unused(row)),
    )  # fmt: skip


def _unused(row: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of a row that have no effect, as error messages name them; misspelled ones with a suggestion."""
    for key, value in row.items():
        if value in (None, [], ""):
            continue
        if key in _UNUSED:
            yield key
        elif (meant := _meant(key)) and meant != key:
            yield f"{key} (did you mean {meant}?)"


@lru_cache(maxsize=1024)
def _meant(key: str) -> str | None:
    """Return the known key that differs from this one only in case, hyphens, underscores or the plural."""
    return next((known for known in _READ if _plain(known) == _plain(key)), None)


def _plain(key: str) -> str:
    return re.sub("[-_]", "", key).lower().rstrip("s")


def broken_text(row: Any, text: bytes) -> str | None:
    """Return the fault of a row's characters: an escape can be half a surrogate pair, which no tokenizer accepts."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return None
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        return f"has half a character: \\u{half:04x} without the other half of its surrogate pair"
    return None


def texts(value: Any) -> Iterator[Any]:
    """Yield all keys and scalar values in a JSON value, the outermost first."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    else:
        yield value


def _message(stated: Any) -> tuple[Message, bool | None]:
    """Return a normalized message and its weight."""
    if not isinstance(stated, dict):
        raise BadConversation(f"it is {_kind(stated)}, not an object with role and content")
    role = stated.get("role")
    if role is None:
        raise BadConversation(
            "it has no role" + (" (from and value are keys of format conversations)" if "from" in stated else "")
        )
    if role not in ROLES:
        raise BadConversation(f"its role {_short(role)} is none of {', '.join(ROLES)}")
    calls = _calls(stated, role)
    content = _content(stated.get("content"))
    if content is None and not calls:
        raise BadConversation("it has no content")
    if role == "assistant" and not calls and not (content or "").strip():
        raise BadConversation("the assistant's content is empty")
    message = {key: value for key, value in stated.items() if value is not None and key not in _LEARNED}
    message.pop("function_call", None)
    message.pop("tool_calls", None)
    message["role"] = _SAME.get(role, role)
    if content is not None:
        message["content"] = content
    if calls:
        message["tool_calls"] = calls
    for key in REASONING:
        if key in message and not isinstance(message[key], str):
            raise BadConversation(f"its {key} is {_kind(message[key])}, not a string")
    thoughts = {key: message[key] for key in REASONING if message.get(key)}
    if len(set(thoughts.values())) > 1:
        raise BadConversation(f"its {' and '.join(thoughts)} differ; keep one")
    return message, _weight(stated)


def _content(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadConversation(f"its content is {_kind(content)}, not a string")
    return "".join(map(_text_of_part, content))


def _unmask(row: dict[str, Any]) -> bool:
    stated = row.get("unmask")
    if stated is not None and not isinstance(stated, bool):
        raise BadConversation(f"has unmask that is {_short(stated)}, not true or false")
    return bool(stated)


def _text_of_part(part: Any) -> str:
    if not isinstance(part, dict):
        raise BadConversation(f"its content has a part that is {_kind(part)}, not an object with type and text")
    if part.get("type") not in _TEXT_PARTS:
        raise BadConversation(f"its content has a part of type {_short(part.get('type'))}, and only text can be trained on")
    if not isinstance(part.get("text"), str):
        raise BadConversation(f"its content has a part whose text is {_kind(part.get('text'))}, not a string")
    stated = next((key for key in (*_LEARNED, *_MASKS) if part.get(key) is not None), None)
    if stated:
        raise BadConversation(f"its content has a part with {stated}; state it for the whole message")
    text: str = part["text"]
    return text


def _weight(stated: Message) -> bool | None:
    """Return the weight of a message as a boolean; ``None`` if it states none."""
    mask = next((key for key in _MASKS if stated.get(key) is not None), None)
    if mask:
        raise BadConversation(f"its key {mask} is not supported; use weight 0 or 1")
    found = {key: stated[key] for key in _LEARNED if stated.get(key) is not None}
    for key, value in found.items():
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise BadConversation(f"its {key} is {_short(value)}; this release reads 0 (not learned) and 1 (learned)")
    if len({bool(value) for value in found.values()}) > 1:
        raise BadConversation(f"its {' and '.join(found)} contradict each other")
    return next((bool(value) for value in found.values()), None)


def _calls(stated: Message, role: str) -> list[dict[str, Any]]:
    """Return the tool calls of a message, with arguments as objects."""
    stated_calls = _decoded(stated.get("tool_calls"), "its tool_calls are")
    if stated_calls is not None and not isinstance(stated_calls, list):
        raise BadConversation(f"its tool_calls are {_kind(stated_calls)}, not a list")
    old = _decoded(stated.get("function_call"), "its function_call is")
    calls = [_call(_decoded(call, "a tool call is")) for call in stated_calls or ()]
    empty = old is None or (isinstance(old, dict) and not any(old.values()))  # typed columns have the keys with null values
    old_calls = [] if empty else [_call({"type": "function", "function": old})]
    if calls and old_calls and _functions(calls) != _functions(old_calls):
        raise BadConversation("its tool_calls and function_call contradict each other")
    calls = calls or old_calls
    if calls and role != "assistant":
        raise BadConversation(f"it calls a tool, but its role is {role}, not assistant")
    return calls


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict):
        raise BadConversation(f"a tool call is {_kind(function)}, not an object with name and arguments")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadConversation("a tool call has no name")
    arguments = _decoded(function.get("arguments"), f"the arguments of its call of {_short(name)} are")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise BadConversation(f"the arguments of its call of {_short(name)} are {_kind(arguments)}, not an object")
    whole = {**function, "arguments": arguments}
    return {**call, "function": whole} if "function" in call else whole


def _tools(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the tools of a row; the older ``functions`` is a list of the inner objects of tools."""
    tools = _list_of_objects(row, "tools", "tool")
    functions = [{"type": "function", "function": function} for function in _list_of_objects(row, "functions", "function")]
    for tool in (*tools, *functions):
        name = tool["function"].get("name") if isinstance(tool.get("function"), dict) else tool.get("name")
        if not isinstance(name, str) or not name:
            raise BadConversation("has a tool without a name")
    if tools and functions and _functions(tools) != _functions(functions):
        raise BadConversation("has tools and functions that contradict each other")
    return tools or functions or None


def _list_of_objects(row: dict[str, Any], key: str, item: str) -> list[dict[str, Any]]:
    """Return the objects in a column; the column or each object may be JSON text."""
    stated = _decoded(row.get(key) or None, f"has {key} that are")
    if stated is not None and not isinstance(stated, list):
        raise BadConversation(f"has {key} that are {_kind(stated)}, not a list")
    found = [_decoded(each, f"has a {item} that is") for each in stated or ()]
    for each in found:
        inner = each.get("function", each) if isinstance(each, dict) else each
        if not isinstance(inner, dict):
            raise BadConversation(f"has a {item} that is {_kind(inner)}, not an object")
    return found


def _functions(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the inner objects of tools or calls; the outer object is optional."""
    return [item.get("function", item) for item in items]


def _arguments(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row's values for the chat template, under TRL's key."""
    arguments = _decoded(row.get("chat_template_kwargs"), "has chat_template_kwargs that are") or {}
    if not isinstance(arguments, dict):
        raise BadConversation(f"has chat_template_kwargs that are {_kind(arguments)}, not an object")
    reserved = sorted(_RESERVED & arguments.keys())
    if reserved:
        raise BadConversation(f"has chat_template_kwargs with {reserved[0]}, which cannot be set there")
    return {key: value for key, value in arguments.items() if value is not None}


def _decoded(value: Any, subject: str) -> Any:
    """Return a value with JSON text decoded; blank text becomes ``None``."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise BadConversation(f"{subject} text that is not JSON: {_short(value)}") from None


def _reject_constant(name: str) -> Any:
    """Reject NaN and Infinity, which are not JSON."""
    raise ValueError(name)


def _without_messages(row: dict[str, Any]) -> str:
    if isinstance(row.get("conversations"), list):
        return "is in format conversations, not messages"
    if all(key in row for key in _ALPACA):
        return "is in format alpaca, not messages"
    if "messages" in row:
        return "has messages that are null, not a list"
    return f"has no messages (its keys are: {listed(list(row), _KEYS_SHOWN)})" if row else "has no messages (it is empty)"
