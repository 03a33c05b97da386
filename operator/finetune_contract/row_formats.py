"""Formats of rows, and the fields of ``dataset.fields`` that each of them reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RowFormat = Literal["messages", "conversations", "alpaca", "prompt-completion", "tokenised", "text"]
"""In the order in which formats are recognized: a row with ``messages`` and ``prompt`` is in format messages."""

REQUIRED: dict[RowFormat, tuple[str, ...]] = {
    "messages": ("messages",), "conversations": ("messages",), "alpaca": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"), "tokenised": ("input_ids",), "text": ("text",),
}  # fmt: skip
"""Fields whose columns a row in the format has."""
OPTIONAL: dict[RowFormat, tuple[str, ...]] = {
    "messages": ("role", "content", "system", "tools"), "conversations": ("role", "content", "system", "tools"),
    "alpaca": ("input", "history", "system", "tools"), "prompt-completion": ("system", "tools"), "tokenised": ("labels",),
    "text": (),
}  # fmt: skip
"""Further fields that the format reads."""


@dataclass(frozen=True)
class RowFields:
    """Names of the columns of a row, and of the keys of its messages; ``None``: the default names of the format."""

    messages: str | None = None
    role: str | None = None
    content: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    history: str | None = None
    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    tools: str | None = None
    text: str | None = None
    input_ids: str | None = None
    labels: str | None = None
