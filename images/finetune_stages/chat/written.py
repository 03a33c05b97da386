"""Check that a template renders all parts of a row: tool calls, tools, contents, reasoning.

A row whose text lacks a part teaches the wrong thing: without its tool call, a turn with a tool call teaches the model to answer
nothing. A search for the values in the text is fast but not sufficient: a template may escape or reformat values, and the name of a
tool or the content of a message may be in the text for another reason. The check has three steps:

1. Once per template and sequence of roles: render the row with a marker instead of each content. If a marker is missing in the text,
   or for an answer in its learned part, rows of this kind may lose that content. Tools are checked in the same way, once per kind of
   beginning.
2. Search: the names and values of a call must be in the turn's part of the text, a content anywhere in the text.
3. If step 1 or 2 fails, render the row once more with the part replaced by a marker. If the marker is missing, the template does not
   render the part.

Step 3 is rare and costs one rendering.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .structure import REASONING, Conversation, Message, texts
from .template import RenderError, Template

_MARK = "qzxmarkxzq"
_THOUGHT = ("<think>", "</think>")

Render = Callable[[Conversation], tuple[str, str]]
"""Renders a conversation with a template and returns the whole text and its learned part (the whole text if that is unknown)."""
_KNOWN = frozenset(("role", "content", "tool_calls", "tool_call_id", "id", *REASONING))


@dataclass(frozen=True)
class Written:
    """The rendered text of a conversation.

    Attributes:
        text: the whole text.
        learned: for each message, the part of the text that must have it: its own turn, if that is learned and known.
    """

    text: str
    learned: Sequence[str]


@dataclass
class Coverage:
    """Coverage of rows by one template, with a cache of its answers by kind of conversation."""

    template: Template
    _tools: dict[tuple[str, ...], bool] = field(default_factory=dict)
    _keys: dict[tuple[str, str], bool] = field(default_factory=dict)
    _contents: dict[tuple[Any, ...], frozenset[int]] = field(default_factory=dict)
    _reasoning: bool | None = None
    _earlier: dict[tuple[Any, ...], bool] = field(default_factory=dict)

    def missing(self, conversation: Conversation, written: Written, render: Render) -> str | None:
        """Return the missing part, to follow "row 17 has"; ``None`` if nothing is missing."""
        if conversation.tools and not self._has_tools(conversation, written):
            return "tools that the chat template does not render"
        dropped = self._dropped_contents(conversation, render)
        for number, (message, part) in enumerate(zip(conversation.messages, written.learned, strict=True)):
            if "tool_calls" in message and not self._has_calls(conversation, number, part, render):
                return f"a tool call in message {number + 1} that the chat template does not render"
            words = (message.get("content") or "").strip()
            if words and (number in dropped or words not in part) and not self._has_content(conversation, number, render):
                return f"a message {number + 1} (role {message['role']}) whose content the chat template does not render"
        return None

    def lost_reasoning(self, conversation: Conversation, text: str) -> str | None:
        """Return the kind of the conversation's reasoning if none of it is in the text, else ``None``.

        A template may render only the reasoning of the last turns (Qwen 3).
        """
        thoughts = [
            (number, key) for number, message in enumerate(conversation.messages) for key in REASONING if message.get(key)
        ]
        if not thoughts:
            return self._lost_thoughts(conversation, text)
        if any(conversation.messages[number][key].strip() in text for number, key in thoughts):
            return None
        if self._reasoning is None:
            answer = {"role": "assistant", "content": "Hi", REASONING[0]: _MARK}
            self._reasoning = _MARK in self._text([{"role": "user", "content": "Hello"}, answer])
        if self._reasoning:
            marked = [
                {**message, **{key: _MARK for key in REASONING if message.get(key)}} for message in conversation.messages
            ]  # fmt: skip
            if _MARK in self._text(marked, conversation):
                return None
        return REASONING[0]

    def _lost_thoughts(self, conversation: Conversation, text: str) -> str | None:
        """Return the same for reasoning inside a content, which some templates remove (DeepSeek-R1 in every turn)."""
        contents = [message.get("content") or "" for message in conversation.messages if message["role"] == "assistant"]
        thoughts = [
            content.partition(_THOUGHT[1])[0].rpartition(_THOUGHT[0])[2].strip() for content in contents if _THOUGHT[1] in content
        ]
        lost = bool(thoughts) and not any(thought in text for thought in thoughts)
        return f"reasoning ({_THOUGHT[0]}) in a content" if lost else None

    def _loses_earlier_reasoning(self, conversation: Conversation) -> bool:
        """Return whether the template renders the reasoning of some turns only, like Qwen 3's that of the last turns."""
        thoughtful = [number for number, message in enumerate(conversation.messages) if _has_thoughts(message)]
        if len(thoughtful) < 2:
            return False
        kind = (tuple(thoughtful), *_kind(conversation))
        if kind not in self._earlier:
            marked = [
                _with_thoughts(message, f"{_MARK}{number}z") if number in thoughtful else message
                for number, message in enumerate(conversation.messages)
            ]
            text = self._text(marked, conversation)
            rendered = [f"{_MARK}{number}z" in text for number in thoughtful]
            self._earlier[kind] = any(rendered) and not all(rendered)
        return self._earlier[kind]

    def unread(self, conversation: Conversation) -> Iterable[str]:
        """Yield parts of messages that do not affect the text."""
        if self._loses_earlier_reasoning(conversation):
            yield "reasoning in earlier turns"
        for number, message in enumerate(conversation.messages):
            for key in message.keys() - _KNOWN:
                if key == "name" and message["role"] == "tool":
                    continue
                asked = (message["role"], key)
                if asked not in self._keys:
                    self._keys[asked] = self._reads(conversation, number, key)
                if not self._keys[asked]:
                    yield key

    def _reads(self, conversation: Conversation, number: int, key: str) -> bool:
        message = conversation.messages[number]
        other = _MARK if isinstance(message[key], str) else None if message[key] else True
        changed = _with(conversation, number, {**message, key: other})
        return self._text(changed.messages, changed) != self._text(conversation.messages, conversation)

    def _has_tools(self, conversation: Conversation, written: Written) -> bool:
        kind = tuple(message["role"] for message in conversation.messages[:2])
        if kind not in self._tools:
            self._tools[kind] = self._writes_tools(conversation)
        if self._tools[kind] and all(_in_text(_function(tool)["name"], written.text) for tool in conversation.tools or ()):
            return True
        return self._writes_tools(conversation)

    def _writes_tools(self, conversation: Conversation) -> bool:
        """Return whether the names of all tools are rendered. Each name is replaced by a marker."""
        tools = [_renamed(tool, f"{_MARK}{number}z") for number, tool in enumerate(conversation.tools or ())]
        text = self._text(conversation.messages, replace(conversation, tools=tools))
        return all(f"{_MARK}{number}z" in text for number in range(len(tools)))

    def _has_calls(self, conversation: Conversation, number: int, part: str, render: Render) -> bool:
        message = conversation.messages[number]
        functions = list(map(_function, message["tool_calls"]))
        values = [value for function in functions for value in (function["name"], *texts(function["arguments"]))]
        # Two calls may have equal values, so a search cannot distinguish them.
        if len(functions) == 1 and all(_in_text(value, part) for value in values):
            return True
        marked = [_marked_call(call, position) for position, call in enumerate(message["tool_calls"])]
        try:
            _, found = render(_with(conversation, number, {**message, "tool_calls": marked}))
        except RenderError:
            return False
        return all(f"{_MARK}{kind}{position}z" in found for position in range(len(marked)) for kind in "nkv")

    def _dropped_contents(self, conversation: Conversation, render: Render) -> frozenset[int]:
        """Return the messages whose contents the template may not render in conversations of this kind."""
        kind = _kind(conversation)
        if kind not in self._contents:
            self._contents[kind] = self._find_dropped(conversation, render)
        return self._contents[kind]

    def _find_dropped(self, conversation: Conversation, render: Render) -> frozenset[int]:
        marked = [
            {**message, "content": f"{_MARK}{number}z"} if _has_words(message) else message
            for number, message in enumerate(conversation.messages)
        ]
        try:
            text, learned = render(replace(conversation, messages=marked))
        except RenderError:  # the template requires certain contents
            return frozenset()
        return frozenset(
            number
            for number, message in enumerate(marked)
            if _has_words(message) and f"{_MARK}{number}z" not in (learned if message["role"] == "assistant" else text)
        )

    def _has_content(self, conversation: Conversation, number: int, render: Render) -> bool:
        """Return whether text appended to the content is rendered: a template may trim a content or drop its reasoning."""
        message = conversation.messages[number]
        try:
            text, learned = render(_with(conversation, number, {**message, "content": f"{message['content']} {_MARK}"}))
        except RenderError:
            return False
        return _MARK in (learned if message["role"] == "assistant" else text)

    def _text(self, messages: Sequence[Message], conversation: Conversation | None = None) -> str:
        try:
            return self.template.text(
                messages, conversation.tools if conversation else None, conversation.arguments if conversation else None
            )
        except RenderError:
            return ""


def _has_words(message: Message) -> bool:
    return bool((message.get("content") or "").strip())


def _kind(conversation: Conversation) -> tuple[Any, ...]:
    """Return the properties of a conversation that determine which parts a template renders."""
    return (
        tuple((message["role"], _has_words(message), "tool_calls" in message) for message in conversation.messages),
        bool(conversation.tools), conversation.unmask, tuple(conversation.weights),
        json.dumps(conversation.arguments, sort_keys=True, default=str),
    )  # fmt: skip


def _has_thoughts(message: Message) -> bool:
    return message["role"] == "assistant" and (
        any(message.get(key) for key in REASONING) or _THOUGHT[1] in (message.get("content") or "")
    )


def _with_thoughts(message: Message, thoughts: str) -> Message:
    """Return the message with its reasoning replaced."""
    changed = {**message, **{key: thoughts for key in REASONING if message.get(key)}}
    _, end, answer = (message.get("content") or "").rpartition(_THOUGHT[1])
    return {**changed, "content": f"{_THOUGHT[0]}{thoughts}{end}{answer}"} if end else changed


def _with(conversation: Conversation, number: int, message: Message) -> Conversation:
    messages = list(conversation.messages)
    messages[number] = message
    return replace(conversation, messages=messages)


def _function(item: dict[str, Any]) -> dict[str, Any]:
    """Return the inner object of a tool or a tool call; the outer object is optional."""
    inner: dict[str, Any] = item.get("function", item)
    return inner


def _renamed(item: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    inner = {**_function(item), "name": name, **more}
    return {**item, "function": inner} if "function" in item else inner


def _marked_call(call: dict[str, Any], position: int) -> dict[str, Any]:
    return _renamed(call, f"{_MARK}n{position}z", arguments={f"{_MARK}k{position}z": f"{_MARK}v{position}z"})


def _in_text(value: Any, text: str) -> bool:
    """Return whether a value is in the text, as it is or encoded as JSON."""
    if isinstance(value, str):
        return value in text or json.dumps(value, ensure_ascii=False)[1:-1] in text or json.dumps(value)[1:-1] in text
    return json.dumps(value) in text or str(value) in text
