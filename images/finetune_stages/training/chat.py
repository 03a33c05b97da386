"""Chat rows to text, and which characters of the text a model learns: the turns of the assistant, or of all but the system.

A chat template that marks what the model generates (``{% generation %}``) is taken at its word. For any other, a turn begins
where the conversation before it ends with the generation prompt, and ends where the conversation with it ends: two renderings a
turn, each checked to be a beginning of the whole. Some templates write an old turn differently once new ones follow (Qwen 3
drops its reasoning): there the turn's own words lead to its end, and where even that is not clear, TRL's version of that
template, made for training, is taken for the row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from finetune_contract import reasons
from finetune_stages.kit import StageError

Row = dict[str, Any]
Message = dict[str, Any]

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "\ue000"
"""A character of the private use area: stands for a message's content to see what the template writes before it."""
_REFUSALS = (TemplateError, ValueError, TypeError, KeyError)
"""What templates throw at conversations that they do not like."""


@dataclass(frozen=True)
class Span:
    """A turn in a rendered conversation, in characters.

    Attributes:
        start: its first character that is learned.
        said: where its content ends; ``start`` where that is not known. From here on its end-of-turn token is looked for.
        end: where it ends.
        exact: without it, ``end`` is only what the turn cannot reach beyond.
    """

    start: int
    said: int
    end: int
    exact: bool = True


@dataclass(frozen=True)
class Rendered:
    """A row as text, and the turns of it that are learned."""

    text: str
    spans: list[Span]


class ChatRenderer:
    """Renders rows with a tokenizer's chat template.

    Args:
        tokenizer: a tokenizer of transformers.
        unmask: learn every message but the system's. A row's own ``unmask: true`` does the same for that row.
        source: name of the rows' file, for messages.

    Raises:
        StageError: ``ChatTemplateMissing``.
    """

    def __init__(self, tokenizer: Any, unmask: bool, source: str) -> None:
        if not tokenizer.chat_template:
            raise StageError(
                reasons.CHAT_TEMPLATE_MISSING,
                "The base model's tokenizer has no chat template: use the instruct or chat variant in model.uri, or add a"
                " chat_template.jinja to the model.",
            )
        self._tokenizer, self._unmask, self._source = tokenizer, unmask, source

    def render(self, row: Row, number: int) -> Rendered:
        """One row; ``number`` is its line, counted from 1.

        Raises:
            StageError: ``BadRow``: the template refuses the conversation. ``ChatTemplateUnclear``: it cannot be told which part
                of the text is a message.
        """
        tools = row.get("tools") or None
        template: str = self._tokenizer.get_chat_template(None, tools)  # some models have one of their own for tools
        conversation = _Conversation(self._tokenizer, template, tools, f"row {number} of {self._source}")
        messages = [{key: value for key, value in message.items() if value is not None} for message in row["messages"]]
        if self._unmask or row.get("unmask") is True:
            return conversation.derived(messages, [message["role"] != "system" for message in messages])
        if _GENERATION.search(template):
            return conversation.marked(messages)
        try:
            return conversation.derived(messages, [message["role"] == "assistant" for message in messages])
        except StageError as error:
            if error.reason is not reasons.CHAT_TEMPLATE_UNCLEAR or not self._training_template:
                raise
        return _Conversation(self._tokenizer, self._training_template, tools, conversation.where).marked(messages)

    @cached_property
    def _training_template(self) -> str | None:
        """TRL's version for training of this model's template, if it is one of those that TRL knows."""
        from trl.chat_template_utils import get_training_chat_template

        try:
            template: str | None = get_training_chat_template(self._tokenizer)
        except _REFUSALS:
            return None
        return template


@dataclass(frozen=True)
class _Conversation:
    """Renders one conversation and parts of it."""

    tokenizer: Any
    template: str
    tools: list[Any] | None
    where: str

    def marked(self, messages: Sequence[Message]) -> Rendered:
        """The text and the turns that the template marks with ``{% generation %}``."""
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[list(messages)], tools=self.tools, chat_template=self.template, return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )  # fmt: skip
        except _REFUSALS as error:
            raise self._refused(error) from error
        return Rendered(texts[0], [Span(start, end, end) for start, end in spans[0]])

    def derived(self, messages: Sequence[Message], learned: Sequence[bool]) -> Rendered:
        """The text and the turns that are ``learned``, found by comparing it with renderings of the conversation's beginnings."""
        text = self._text(messages)
        return Rendered(text, [self._span(text, messages, index) for index, wanted in enumerate(learned) if wanted])

    def _span(self, text: str, messages: Sequence[Message], index: int) -> Span:
        start = self._start(text, messages, index)
        end, exact = len(text), True
        if index + 1 < len(messages):
            try:
                upto = self._text(messages[: index + 1])
            except StageError:  # some templates want the user to have the last word
                upto = ""
            exact = len(upto) > start and text.startswith(upto)
            end = len(upto) if exact else self._start(text, messages, index + 1)
        content = messages[index].get("content")
        words = content.strip() if isinstance(content, str) else ""
        found = text.rfind(words, start, end) if words else -1
        return Span(start, start if found < 0 else found + len(words), end, exact)

    def _start(self, text: str, messages: Sequence[Message], index: int) -> int:
        before, message = list(messages[:index]), messages[index]
        least = None
        if message["role"] == "assistant" and before:
            head = self._text(before, prompt=True)
            if not text.startswith(head):
                least = self._text(before)
        else:
            head, found, _ = self._text([*before, {**message, "content": _PROBE}]).partition(_PROBE)
            if not found:
                raise self._unclear(index, "its content does not appear in the text")
        # A generation prompt can hold more than stands before an old reply: the beginning of a reasoning that was dropped.
        shared = _shared(text, head)
        if shared < len(head) and (least is None or shared < len(least)):
            raise self._unclear(index, "what comes before it is written differently once it is there")
        return shared

    def _text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tools=self.tools, chat_template=self.template, tokenize=False, add_generation_prompt=prompt
            )
        except _REFUSALS as error:
            raise self._refused(error) from error
        return text

    def _refused(self, error: Exception) -> StageError:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        return StageError(
            reasons.BAD_ROW, f"The model's chat template refuses {self.where} ({why}): correct the row, or leave it out."
        )

    def _unclear(self, index: int, why: str) -> StageError:
        return StageError(
            reasons.CHAT_TEMPLATE_UNCLEAR,
            f"The model's chat template does not let message {index + 1} of {self.where} be told from the rest: {why};"
            " mark the assistant's part with {% generation %} in the template.",
        )


def _shared(text: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    if text.startswith(other):
        return len(other)
    return next(
        (place for place, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), min(len(text), len(other))
    )
