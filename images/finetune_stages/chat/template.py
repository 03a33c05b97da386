"""Chat templates: rendering of conversations with a tokenizer's special tokens, and rendering errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.bounded import SECONDS, LimitExceeded, bounded, bounded_text
from finetune_stages.sdk.fault import first_line

from .structure import Message

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = ("qzxnamexzq", "qzxkeyxzq", "qzxvaluexzq")
_GREETING = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]

Tools = list[dict[str, Any]] | None


@dataclass(frozen=True)
class CallForm:
    """Form of a message with tool calls: empty or null content, arguments as JSON text or as an object."""

    empty: str | None
    as_text: bool

    def of(self, message: Message) -> Message:
        """Return a message with tool calls in this form."""
        message = {**message, "content": message.get("content") or self.empty}
        return {**message, "tool_calls": list(map(_with_text_arguments, message["tool_calls"]))} if self.as_text else message


_CALL_FORMS = tuple(CallForm(empty, as_text) for as_text in (False, True) for empty in (None, ""))


class RenderError(Exception):
    """A template does not render a conversation.

    Attributes:
        own: true if the template called ``raise_exception`` to reject the conversation; false if rendering failed.
    """

    def __init__(self, error: Exception) -> None:
        words = first_line(error, 300)
        super().__init__(words if words.endswith("...") else words.rstrip("."))
        self.own = type(error) is TemplateError
        self.error = error


@dataclass(frozen=True)
class Template:
    """A chat template.

    Attributes:
        source: its text.
        special: the tokenizer's special tokens by their names in templates.
        added: texts of all added tokens, which the tokenizer never splits.
        training: true for TRL's training version of the model's template.
    """

    source: str
    special: Mapping[str, Any] = field(compare=False)
    added: tuple[str, ...] = field(default=(), compare=False)
    training: bool = False

    @property
    def marks(self) -> bool:
        """Whether it marks the generated parts with ``{% generation %}``."""
        return _GENERATION.search(self.source) is not None

    def text(
        self, messages: Sequence[Message], tools: Tools = None, arguments: Mapping[str, Any] | None = None, prompt: bool = False
    ) -> str:
        """Return the text of a conversation; with ``prompt``, including the generation prompt.

        Raises:
            RenderError: The template does not render the conversation.
        """
        return self._render(self._prepared(messages), tools, arguments, add_generation_prompt=prompt)[0]

    def marked(
        self, messages: Sequence[Message], tools: Tools = None, arguments: Mapping[str, Any] | None = None
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a conversation and the character ranges that the template marks.

        Raises:
            RenderError: The template does not render the conversation.
        """
        return self._render(self._prepared(messages), tools, arguments, return_assistant_tokens_mask=True)

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it requires content as a list of parts, like templates of vision models."""
        return not self._greets(_GREETING) and self._greets(list(map(_in_parts, _GREETING)))

    def _greets(self, greeting: list[Message]) -> bool:
        try:
            text = self._render(greeting, None, None)[0]
        except RenderError:
            return False
        return "Hello" in text and "Hi" in text

    def require_sound(self) -> None:
        """Check that it compiles and renders a greeting.

        Raises:
            StageError: ``ChatTemplateInvalid``.
        """
        try:
            self.text(_GREETING)
        except RenderError as failure:
            if not failure.own:
                raise self.invalid(failure) from failure

    def invalid(self, failure: RenderError) -> StageError:
        """Return the stage error for an invalid template."""
        line = f", line {failure.error.lineno}" if isinstance(failure.error, TemplateSyntaxError) else ""
        return StageError(
            reasons.CHAT_TEMPLATE_INVALID,
            f"model.uri: the chat template is invalid: {failure}{line}; correct the template in the model's files, or use another model.",
        )

    @cached_property
    def call_form(self) -> CallForm:
        """The form of a tool call that it renders completely.

        Most templates accept an object as arguments. Some accept only JSON text (DeepSeek-V3) or print an object in Python syntax, and
        some render a call only if the content is null (DeepSeek-R1), or render a null content as ``None``.
        """
        return next(filter(self._writes, _CALL_FORMS), CallForm("", as_text=False))

    def _writes(self, form: CallForm) -> bool:
        call = {"id": "call00000", "type": "function", "function": {"name": _PROBE[0], "arguments": {_PROBE[1]: _PROBE[2]}}}
        try:
            text = self._render([_GREETING[0], form.of({"role": "assistant", "tool_calls": [call]})], None, None)[0]
        except RenderError:
            return False
        return all(probe in text for probe in _PROBE) and "None" not in text and f"'{_PROBE[1]}': '{_PROBE[2]}'" not in text

    def _render(
        self, messages: Sequence[Message], tools: Tools, arguments: Mapping[str, Any] | None, **how: Any
    ) -> tuple[str, list[tuple[int, int]]]:
        values = {**self.special, **(arguments or {})}

        def render() -> Any:
            return render_jinja_template([list(messages)], tools=tools, chat_template=self.source, **how, **values)

        try:
            texts, spans = bounded(SECONDS, render)
            bounded_text(lambda: texts[0])
        except LimitExceeded as limit:
            raise StageError(
                reasons.CHAT_TEMPLATE_INVALID,
                f"model.uri: the chat template {limit} for one conversation; correct the template in the model's files, or use another model.",
            ) from limit
        except Exception as error:  # a template can raise any exception
            raise RenderError(error) from error
        return texts[0], spans[0] if spans else []

    def _prepared(self, messages: Sequence[Message]) -> list[Message]:
        prepared = [self.call_form.of(message) if "tool_calls" in message else message for message in messages]
        return list(map(_in_parts, prepared)) if self.takes_parts else prepared


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    whole = {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    return {**call, "function": whole} if "function" in call else whole


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message.get("content") or ""}]}
