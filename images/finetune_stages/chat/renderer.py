"""Chat rows to text, and which characters of the text a model learns: the turns of the assistant, or of all but the system.

A chat template that marks what the model generates (``{% generation %}``) is taken at its word. For any other, a turn begins
where the conversation before it ends with the generation prompt, and ends where the conversation with it ends: two renderings a
turn, each checked to be a beginning of the whole. Some templates write an old turn differently once new ones follow (Qwen 3
drops its reasoning): there the turn's own words lead to its end. Some refuse a part of a conversation whose whole they render (Qwen
3.5 wants a question before the first answer): there the turn begins where the whole changes with the turn's words.

Where that is not clear, or where the text lacks a part of the row (:mod:`.written`), TRL's version of the model's template, made for
training, is taken for the row. Where that lacks it too, the row is rejected, or counted if only its reasoning is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .structure import Conversation, Message
from .template import RenderError, Template
from .written import Coverage, Written

_PROBE = "\ue000"
"""A character of the private use area: stands for a message's content to see what the template writes before it."""


class RowRejected(Exception):
    """A row cannot be rendered; the text completes a sentence that begins with "row 17"."""


class Unclear(RowRejected):
    """It is not clear which part of the text a message is."""


@dataclass(frozen=True)
class Span:
    """A turn in a rendered conversation, in characters.

    Attributes:
        start: its first character that is learned.
        content_end: where its content ends; ``start`` where that is not known. From here on its end-of-turn token is looked for.
        end: where it ends.
        exact: without it, ``end`` is only what the turn cannot reach beyond.
        message: number of the message, where it is known.
    """

    start: int
    content_end: int
    end: int
    exact: bool = True
    message: int | None = None


@dataclass(frozen=True)
class Rendered:
    """A row as text.

    Attributes:
        spans: the turns of it that are learned.
        template: the template that wrote it.
        lost: a part of the row that the template does not write although the row is good without it.
        unused: keys of the row and of its messages that have no effect.
    """

    text: str
    spans: list[Span]
    template: Template
    lost: str | None = None
    unused: frozenset[str] = frozenset()


class ChatRenderer:
    """Renders conversations with a tokenizer's chat template.

    Args:
        tokenizer: a tokenizer of transformers.
        unmask: learn every message but the system's. A row's own ``unmask: true`` does the same for that row.

    Raises:
        StageError: ``ChatTemplateMissing``, ``ChatTemplateInvalid``.
    """

    def __init__(self, tokenizer: Any, unmask: bool = False) -> None:
        self._tokenizer, self._unmask = tokenizer, unmask
        self._special = dict(tokenizer.special_tokens_map)
        self._added = tuple(tokenizer.get_added_vocab())
        self._templates: dict[str, Template] = {}
        self._coverage: dict[Template, Coverage] = {}
        self._own(None)

    def render(self, conversation: Conversation) -> Rendered:
        """One row.

        Raises:
            RowRejected: the template refuses the conversation, or does not write a part of it.
            Unclear: it cannot be told which part of the text is a message.
        """
        own = self._own(conversation.tools)
        try:
            rendered = self._rendered(conversation, own)
        except RowRejected as error:
            if isinstance(error.__cause__, RenderError):
                raise
            found = self._rendered_for_training(conversation)
            if not found:
                raise
            return found
        if rendered.lost:
            found = self._rendered_for_training(conversation)
            return found if found and not found.lost else rendered
        return rendered

    def _rendered_for_training(self, conversation: Conversation) -> Rendered | None:
        """Return the row as TRL's version of the model's template writes it, if there is one and it does."""
        if not self._training:
            return None
        try:
            return self._rendered(conversation, self._training)
        except RowRejected:
            return None

    def _rendered(self, conversation: Conversation, template: Template) -> Rendered:
        coverage = self._coverage.setdefault(template, Coverage(template))

        def again(changed: Conversation) -> tuple[str, str]:
            if not template.marks:
                text = template.text(changed.messages, changed.tools, changed.arguments)
                return text, text
            text, places = template.marked(changed.messages, changed.tools, changed.arguments)
            return text, text if self._everything(changed) else "\n".join(text[start:end] for start, end in places)

        def require_whole(text: str, spans: list[Span]) -> None:
            missing = coverage.missing(conversation, Written(text, self._parts(conversation, text, spans)), again)
            if missing:
                raise RowRejected(f"has {missing}")

        try:
            text, spans = self._turns(conversation, template)
        except Unclear:  # perhaps because it is not there at all
            text = template.text(conversation.messages, conversation.tools, conversation.arguments)
            require_whole(text, [Span(0, 0, len(text))])
            raise
        require_whole(text, spans)
        unused = conversation.unused | frozenset(coverage.unread(conversation))
        if conversation.not_honored(self._unmask):
            unused |= {"weight 1 of a message that is not the assistant's"}
        return Rendered(text, spans, template, coverage.lost_reasoning(conversation, text), unused)

    def _parts(self, conversation: Conversation, text: str, spans: list[Span]) -> list[str]:
        """For each message the part of the text that must have it."""
        parts = [text] * len(conversation.messages)
        learned = "\n".join(text[span.start : span.end] for span in spans)
        for number, wanted in enumerate(conversation.learned(self._unmask)):
            if wanted:
                parts[number] = learned
        for span in spans:
            if span.message is not None:
                parts[span.message] = text[span.start : span.end]
        return parts

    def _everything(self, conversation: Conversation) -> bool:
        return self._unmask or conversation.unmask

    def _turns(self, conversation: Conversation, template: Template) -> tuple[str, list[Span]]:
        """Return the text and the turns that are learned."""
        learned = conversation.learned(self._unmask)
        turns = _Turns(template, conversation)
        if not template.marks or self._everything(conversation):
            return turns.derived(learned)
        text, spans = turns.marked()
        answers = [number for number, message in enumerate(conversation.messages) if message["role"] == "assistant"]
        if len(spans) == len(answers):
            spans = [
                Span(span.start, span.content_end, span.end, message=number) for span, number in zip(spans, answers, strict=True)
            ]
            return text, [span for span in spans if span.message is not None and learned[span.message]]
        if not all(learned[number] for number in answers):  # some have weight 0, and it is not known which spans are theirs
            return turns.derived(learned)
        return text, spans

    def _own(self, tools: Any) -> Template:
        """Return the model's template; some models have one of their own for tools."""
        try:
            source = self._tokenizer.get_chat_template(None, tools)
        except ValueError:
            source = None
        if not source:
            raise StageError(
                reasons.CHAT_TEMPLATE_MISSING,
                "model.uri: its tokenizer has no chat template; use the instruct or chat variant of the model, or add a"
                " chat_template.jinja to its files.",
            )
        return self._template(source)

    def _template(self, source: str, **more: Any) -> Template:
        if source not in self._templates:
            self._templates[source] = Template(source, self._special, self._added, **more)
            self._templates[source].require_sound()
        return self._templates[source]

    @cached_property
    def _training(self) -> Template | None:
        """TRL's version for training of this model's template, if it is one of those that TRL knows."""
        from trl.chat_template_utils import get_training_chat_template

        try:
            source = get_training_chat_template(self._tokenizer)
        except Exception:  # noqa: BLE001 - the library renders conversations of its own with a template that may refuse them
            return None
        return self._template(source, training=True) if source else None


@dataclass(frozen=True)
class _Turns:
    """Finds the turns of one conversation."""

    template: Template
    conversation: Conversation

    def marked(self) -> tuple[str, list[Span]]:
        """Return the text and the turns that the template marks with ``{% generation %}``."""
        try:
            text, places = self.template.marked(self.conversation.messages, self.conversation.tools, self.conversation.arguments)
        except RenderError as failure:
            raise rejected(failure) from failure
        return text, [Span(start, end, end) for start, end in places]

    def derived(self, learned: Sequence[bool]) -> tuple[str, list[Span]]:
        """Return the text and the turns that are ``learned``, found by comparing it with renderings of the conversation's beginnings."""
        messages = self.conversation.messages
        try:
            text = self._text(messages)
        except RenderError as failure:
            raise rejected(failure) from failure
        return text, [self._span(text, messages, index) for index, wanted in enumerate(learned) if wanted]

    def _span(self, text: str, messages: Sequence[Message], index: int) -> Span:
        start = self._start(text, messages, index)
        end, exact = len(text), True
        if index + 1 < len(messages):
            try:
                upto = self._text(messages[: index + 1])
            except RenderError:  # some templates want the user to have the last word
                upto = ""
            exact = len(upto) > start and text.startswith(upto)
            end = len(upto) if exact else self._start(text, messages, index + 1)
        words = (messages[index].get("content") or "").strip()
        found = text.rfind(words, start, end) if words and "tool_calls" not in messages[index] else -1
        return Span(start, start if found < 0 else found + len(words), end, exact, index)

    def _start(self, text: str, messages: Sequence[Message], index: int) -> int:
        before, message = list(messages[:index]), messages[index]
        least = None
        try:
            if message["role"] == "assistant" and before:
                head = self._text(before, prompt=True)
                if not text.startswith(head):
                    least = self._text(before)
            else:
                head, found, _ = self._text([*before, {**message, "content": _PROBE}]).partition(_PROBE)
                if not found:
                    raise _unclear(index, "its content does not appear in the text")
        except RenderError:
            return self._start_in_whole(text, messages, index)
        # A generation prompt can hold more than stands before an old reply: the beginning of a reasoning that was dropped.
        shared = shared_beginning(text, head)
        if shared < len(head) and (least is None or shared < len(least)):
            raise _unclear(index, "what comes before it is written differently once it is there")
        return shared

    def _start_in_whole(self, text: str, messages: Sequence[Message], index: int) -> int:
        """Return where the whole text changes with the words of a message: for templates that refuse the beginning of a conversation."""
        other = {key: value for key, value in messages[index].items() if key != "tool_calls"}
        try:
            changed = self._text([*messages[:index], {**other, "content": _PROBE}, *messages[index + 1 :]])
        except RenderError as failure:
            raise _unclear(index, f"the template refuses a part of the conversation ({failure})") from None
        start = shared_beginning(text, changed)
        if not changed.startswith(_PROBE, start):
            raise _unclear(index, "its content does not appear in the text")
        return start

    def _text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        return self.template.text(messages, self.conversation.tools, self.conversation.arguments, prompt)


def rejected(failure: RenderError) -> RowRejected:
    """Return the error for a row that a template rejects."""
    return RowRejected(f"is rejected by the model's chat template ({failure})")


def _unclear(index: int, why: str) -> Unclear:
    return Unclear(f"has a message {index + 1} that the model's chat template does not let be told from the rest: {why}")


def shared_beginning(text: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    if text.startswith(other):
        return len(other)
    return next(
        (place for place, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), min(len(text), len(other))
    )
