"""Check of rows that are published without messages: documents and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_contract.row_formats import RowFormat
from finetune_stages.chat.structure import broken_text
from finetune_stages.sources.json_values import kind, shown

NOT_LEARNED = -100
"""Label of a token that is not learned."""
_OTHER_MASKS = ("completion_mask", "assistant_masks", "assistant_mask", "loss_mask")
"""Columns of other trainers for the learned tokens."""


def published_form(form: RowFormat) -> RowFormat:
    """Return the form in which rows in a format are published."""
    return form if form in ("tokenised", "text") else "messages"


def row_check(form: RowFormat) -> Callable[[Any, bytes], str | None] | None:
    """Return the check of a published row without messages, which returns the fault, to follow "row 17", or ``None``.

    ``None`` for chat rows, which have a check of their own.
    """
    return {"text": _document_fault, "tokenised": _tokens_fault}.get(form)


def _document_fault(row: Any, text: bytes) -> str | None:
    if not isinstance(row, dict):
        return f"is {kind(row)}, not an object with text"
    if "text" not in row:
        return "has no text"
    stated = row["text"]
    if not isinstance(stated, str):
        return f"has a column text that is {kind(stated)}, not a string"
    return broken_text(row, text) if stated.strip() else "has an empty text"


def _tokens_fault(row: Any, text: bytes) -> str | None:
    if not isinstance(row, dict):
        return f"is {kind(row)}, not an object with input_ids"
    if "input_ids" not in row:
        return "has no input_ids"
    ids, labels, mask = row["input_ids"], row.get("labels"), row.get("attention_mask")
    if not isinstance(ids, list) or not ids:
        return f"has a column input_ids that is {kind(ids) if ids != [] else 'an empty list'}, not a list of tokens"
    wrong = next((each for each in ids if not _is_token(each)), None)
    if wrong is not None or None in ids:
        return f"has a column input_ids with {shown(wrong)}, which is not the number of a token"
    return _labels_fault(row, ids, labels) or _mask_fault(ids, labels, mask) or broken_text(row, text)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _labels_fault(row: dict[str, Any], ids: list[int], labels: Any) -> str | None:
    if labels is None:
        other = next((column for column in _OTHER_MASKS if row.get(column) is not None), None)
        return f"has {other} and no labels, and only labels are read" if other else None
    if not isinstance(labels, list):
        return f"has a column labels that is {kind(labels)}, not a list"
    if len(labels) != len(ids):
        return f"has input_ids of length {len(ids):,} and labels of length {len(labels):,}; each token needs a label"
    for number, (token, label) in enumerate(zip(ids, labels, strict=True), start=1):
        if label not in (token, NOT_LEARNED) or isinstance(label, bool):
            return f"has label {shown(label)} for token {number}, which is neither {NOT_LEARNED} nor the token itself ({token})"
    return None


def _mask_fault(ids: list[int], labels: Any, mask: Any) -> str | None:
    """Return the fault of an attention mask: zeros mark padding at the beginning or the end."""
    if mask is None:
        return None
    if not isinstance(mask, list) or len(mask) != len(ids) or any(each not in (0, 1) for each in mask):
        return "has an attention_mask that is not a list with 0 or 1 for each token"
    if 1 not in mask:
        return "has an attention_mask without a 1"
    first, last = mask.index(1), len(mask) - mask[::-1].index(1)
    if 0 in mask[first:last]:
        return "has an attention_mask with a 0 between two tokens"
    padding = [*labels[:first], *labels[last:]] if labels else []
    return "has a label for a token with attention_mask 0" if any(label != NOT_LEARNED for label in padding) else None
