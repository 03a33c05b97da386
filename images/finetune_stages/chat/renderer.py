"""Rendering of chat rows, with the characters that a model learns: the assistant's turns, or all turns but the system's.

The marks of a chat template with ``{% generation %}`` are used as they are. For other templates, a turn begins at the end of the
preceding conversation with the generation prompt, and ends at the end of the conversation that includes it: two renderings per turn,
each of which must be a prefix of the whole text. Some templates render an old turn differently once new ones follow (Qwen 3 drops its
reasoning): then the turn's content determines its end. Some reject a part of a conversation that they render as a whole (Qwen 3.5
requires a question before the first answer): then the turn begins where the whole text changes with the turn's content.

If a turn's position is ambiguous, or if the text lacks a part of the row (:mod:`.written`), the row is rendered with TRL's training
version of the model's template. If that text lacks the part, too, the row is rejected, or counted if only its reasoning is missing.
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
"""A private-use character that replaces a message's content, to find the text that the template writes before it."""


class RowRejected(Exception):
    """A row cannot be rendered; the text completes a sentence that begins with "row 17"."""


class Unclear(RowRejected):
    """The position of a message in the text is ambiguous."""


@dataclass(frozen=True)
class Span:
    """A turn in a rendered conversation, in characters.

    Attributes:
        start: first learned character.
        content_end: end of its content, ``start`` if it is unknown. The search for the end-of-turn token starts here.
        end: end of the turn.
        exact: if false, ``end`` is an upper bound.
        message: number of the message, if it is known.
    """

    start: int
    content_end: int
    end: int
    exact: bool = True
    message: int | None = None


@dataclass(frozen=True)
class Rendered:
    """A rendered row.

    Attributes:
        spans: the learned turns.
        template: the template that rendered the row.
        lost: an optional part of the row that the template does not render.
        unused: keys of the row and of its messages that have no effect.
    """

    text: str
    spans: list[Span]
    template: Template
    lost: str | None = None
    unused: frozenset[str] = frozenset()


class ChatRenderer:
    """Renderer of conversations with a tokenizer's chat template.

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
        """Render one row.

        Raises:
            RowRejected: The template rejects the conversation, or does not render a part of it.
            Unclear: The position of a message in the text is ambiguous.
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
        """Return the row rendered by TRL's training version of the template; ``None`` if there is none or it rejects the row."""
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
            text, ranges = template.marked(changed.messages, changed.tools, changed.arguments)
            return text, text if self._everything(changed) else "\n".join(text[start:end] for start, end in ranges)

        def require_whole(text: str, spans: list[Span]) -> None:
            missing = coverage.missing(conversation, Written(text, self._parts(conversation, text, spans)), again)
            if missing:
                raise RowRejected(f"has {missing}")

        try:
            text, spans = self._turns(conversation, template)
        except Unclear:  # perhaps because the text lacks it
            text = template.text(conversation.messages, conversation.tools, conversation.arguments)
            require_whole(text, [Span(0, 0, len(text))])
            raise
        require_whole(text, spans)
        unused = conversation.unused | frozenset(coverage.unread(conversation))
        if conversation.not_honored(self._unmask):
            unused |= {"weight 1 of a message that is not the assistant's"}
        return Rendered(text, spans, template, coverage.lost_reasoning(conversation, text), unused)

    def _parts(self, conversation: Conversation, text: str, spans: list[Span]) -> list[str]:
        """Return, for each message, the part of the text that must have its content."""
        parts = [text] * len(conversation.messages)
        learned = "\n".join(text[span.start : span.end] for span in spans)
        for number, is_learned in enumerate(conversation.learned(self._unmask)):
            if is_learned:
                parts[number] = learned
        for span in spans:
            if span.message is not None:
                parts[span.message] = text[span.start : span.end]
        return parts

    def _everything(self, conversation: Conversation) -> bool:
        return self._unmask or conversation.unmask

    def _turns(self, conversation: Conversation, template: Template) -> tuple[str, list[Span]]:
        """Return the text and the learned turns."""
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
        if not all(learned[number] for number in answers):  # some have weight 0, and their spans are unknown
            return turns.derived(learned)
        return text, spans

    def _own(self, tools: Any) -> Template:
        """Return the model's template; some models have a separate one for tools."""
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
        """TRL's training version of this model's template, if TRL has one."""
        from trl.chat_template_utils import get_training_chat_template

        try:
            source = get_training_chat_template(self._tokenizer)
        except Exception:  # noqa: BLE001 - the library renders its own conversations, which the template may reject
            return None
        return self._template(source, training=True) if source else None


@dataclass(frozen=True)
class _Turns:
    """Finder of the turns of one conversation."""

    template: Template
    conversation: Conversation

    def marked(self) -> tuple[str, list[Span]]:
        """Return the text and the turns that the template marks with ``{% generation %}``."""
        try:
            text, ranges = self.template.marked(self.conversation.messages, self.conversation.tools, self.conversation.arguments)
        except RenderError as failure:
            raise rejected(failure) from failure
        return text, [Span(start, end, end) for start, end in ranges]

    def derived(self, learned: Sequence[bool]) -> tuple[str, list[Span]]:
        """Return the text and the ``learned`` turns, found by comparison with renderings of the conversation's prefixes."""
        messages = self.conversation.messages
        try:
            text = self._text(messages)
        except RenderError as failure:
            raise rejected(failure) from failure
        return text, [self._span(text, messages, index) for index, is_learned in enumerate(learned) if is_learned]

    def _span(self, text: str, messages: Sequence[Message], index: int) -> Span:
        start = self._start(text, messages, index)
        end, exact = len(text), True
        if index + 1 < len(messages):
            try:
                upto = self._text(messages[: index + 1])
            except RenderError:  # some templates require a user's message at the end
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
        # A generation prompt can be longer than the text before an old reply: it can begin a reasoning that was dropped.
        shared = shared_beginning(text, head)
        if shared < len(head) and (least is None or shared < len(least)):
            raise _unclear(index, "the text before it changes when it is added")
        return shared

    def _start_in_whole(self, text: str, messages: Sequence[Message], index: int) -> int:
        """Return where the whole text changes with a message's content, for templates that reject the conversation's beginning."""
        other = {key: value for key, value in messages[index].items() if key != "tool_calls"}
        try:
            changed = self._text([*messages[:index], {**other, "content": _PROBE}, *messages[index + 1 :]])
        except RenderError as failure:
            raise _unclear(index, f"the template rejects a part of the conversation ({failure})") from None
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
    return Unclear(f"has a message {index + 1} whose position in the rendered text is ambiguous: {why}")


def shared_beginning(text: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    if text.startswith(other):
        return len(other)
    return next(
        (position for position, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]),
        min(len(text), len(other)),
    )
