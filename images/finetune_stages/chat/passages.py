"""Passages for evaluation: rendered conversations with the positions of the answers to score.

Scored text
    Each answer of the assistant without surrounding white space, in the conversation up to that answer as the chat template renders
    it, with the row's tools and system messages. The template's own tokens, including the end-of-turn token, are context and not
    scored, so that models with different templates and tokenizers can be compared. An answer that the template rewrites (reasoning)
    is scored in its rendered form, from the end of the generation prompt; one that it shortens, as far as it is rendered.

    A turn with tool calls is scored as the template renders it, including its content: the characters in which it differs from a
    turn with other content. An answer with weight 0 is context and not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .renderer import Rendered, RowRejected, Span, rejected, shared_beginning
from .structure import Conversation, Message
from .template import RenderError, Template

_START = "\N{START OF TEXT}answer-starts-here\N{START OF TEXT}"
_END = "\N{END OF TEXT}answer-ends-here\N{END OF TEXT}"
_THOUGHTS_END = "</think>"
_OTHER = "\ue000"
"""Text that no answer begins or ends with."""


@dataclass(frozen=True)
class Passage:
    """A rendered conversation and the half-open character ranges of its answers."""

    text: str
    answers: tuple[tuple[int, int], ...]


def passages(conversation: Conversation, rendered: Rendered) -> list[Passage]:
    """Return the smallest number of texts that have all answers of a conversation.

    Most templates render the beginning of a conversation independently of its continuation: one text has all answers. If a
    template does not (reasoning models drop earlier reasoning), each affected answer gets a text that ends with it.

    ``rendered`` is the conversation as rendered by :meth:`.renderer.ChatRenderer.render`.

    Raises:
        RowRejected: An answer is not found in the rendered text.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    for number in reversed(range(len(conversation.messages))):
        if not is_answer(conversation, number):
            continue
        text, start = _Answers(conversation, rendered).until(number)
        for longer, answers in found:
            if longer.startswith(text):
                answers.append((start, len(text)))
                break
        else:
            found.append((text, [(start, len(text))]))
    return [Passage(text, tuple(reversed(answers))) for text, answers in reversed(found)]


def is_answer(conversation: Conversation, number: int) -> bool:
    """Return whether a message is scored."""
    message = conversation.messages[number]
    content = bool((message.get("content") or "").strip()) or "tool_calls" in message
    return message["role"] == "assistant" and content and conversation.weights[number] is not False


@dataclass(frozen=True)
class _Answers:
    conversation: Conversation
    rendered: Rendered

    def until(self, number: int) -> tuple[str, int]:
        """Return the conversation rendered up to the end of an answer, and the answer's start."""
        messages = self.conversation.messages[: number + 1]
        try:
            return self._until_calls(messages) if "tool_calls" in messages[-1] else self._until_words(messages, number)
        except RenderError as failure:
            return self._in_whole(number, failure)

    def _until_words(self, messages: Sequence[Message], number: int) -> tuple[str, int]:
        *before, last = messages
        answer = last["content"].strip()
        text, end, _ = self._text([*before, {**last, "content": answer + _END}]).partition(_END)
        if end and text.endswith(answer):
            return text, len(text) - len(answer)
        prompt = self._text(before, prompt=True)
        if end and text.startswith(prompt) and len(text) > len(prompt):
            return text, len(text) - len(text[len(prompt) :].lstrip())
        without_thoughts = answer.rpartition(_THOUGHTS_END)[2].strip()
        if end and without_thoughts and text.endswith(without_thoughts):
            return text, len(text) - len(without_thoughts)
        if end and (start := self._written_start(before, last, answer, text)) is not None:
            return text, start
        span = self._span(number)
        if end and span and text.startswith(self.rendered.text[: span.start]) and text[span.start :].strip():
            return text, len(text) - len(text[span.start :].lstrip())
        raise RowRejected(f"has an answer that the chat template does not render: {answer[:60]!r}")

    def _written_start(self, before: Sequence[Message], last: Message, answer: str, text: str) -> int | None:
        """Return the start of an answer that the template escapes; ``None`` if a marker before the answer changes other text."""
        marked = self._text([*before, {**last, "content": _START + answer + _END}])
        head, found, rest = marked.partition(_START)
        return len(head) if found and head + rest.partition(_END)[0] == text else None

    def _until_calls(self, messages: Sequence[Message]) -> tuple[str, int]:
        *before, last = messages
        text = self._text(messages)
        other = self._text([*before, {"role": last["role"], "content": _OTHER}])
        start = shared_beginning(text, other)
        end = self._before_token(text, len(text) - shared_beginning(text[:start:-1], other[:start:-1]))
        content = text[start:end].rstrip()
        if not content.strip():
            raise RowRejected("has a tool call that the chat template does not render")
        return text[:start] + content, start + len(content) - len(content.lstrip())

    def _before_token(self, text: str, position: int) -> int:
        """Return a position in a text, moved to the beginning of the token that contains it."""
        for token in self.rendered.template.added:
            found = text.find(token, max(0, position - len(token) + 1), position + len(token) - 1)
            if 0 <= found < position:
                return found
        return position

    def _in_whole(self, number: int, failure: RenderError) -> tuple[str, int]:
        """Return the answer in the rendered whole conversation, for templates that reject its beginning."""
        answer = (self.conversation.messages[number].get("content") or "").strip()
        span = self._span(number)
        if span is None or not answer or not self.rendered.text[: span.content_end].endswith(answer):
            raise rejected(failure) from failure
        return self.rendered.text[: span.content_end], span.content_end - len(answer)

    def _span(self, number: int) -> Span | None:
        """Return the span of a message in the whole text, if it is known."""
        return next((span for span in self.rendered.spans if span.message == number), None)

    def _text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        template: Template = self.rendered.template
        return template.text(messages, self.conversation.tools, self.conversation.arguments, prompt)
