"""Tokens of rows without messages, which no chat template renders: documents, and rows that are tokens already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetune_stages.chat.passages import Passage

from .labels import Tokens

_NOT_LEARNED = -100


def document_tokens(texts: Sequence[str], tokenizer: Any) -> Iterator[Tokens]:
    """Yield tokens and labels of documents, with the tokenizer's special tokens and an end-of-sequence token, as TRL has them.

    All tokens are learned but the first, which has no context.
    """
    if not texts:
        return
    end = tokenizer.eos_token_id
    for ids in tokenizer(list(texts), add_special_tokens=True)["input_ids"]:
        whole = ids if end is None or ids[-1:] == [end] else [*ids, end]
        yield _tokens(whole, whole)


def given_tokens(row: dict[str, Any]) -> Tokens:
    """Return tokens and labels of a row in format tokenised, without its padding. Without ``labels``, all tokens are learned."""
    ids, mask = row["input_ids"], row.get("attention_mask")
    labels = ids if row.get("labels") is None else row["labels"]
    kept = slice(None) if mask is None else slice(mask.index(1), len(mask) - mask[::-1].index(1))
    return _tokens(ids[kept], labels[kept])


def document_passages(text: str) -> list[Passage]:
    """Return the passage of a document: its whole text is scored."""
    return [Passage(text, ((0, len(text)),))]


def _tokens(ids: Sequence[int], labels: Sequence[int]) -> Tokens:
    learned = np.array(labels, dtype=np.int64) != _NOT_LEARNED
    learned[:1] = False
    return np.array(ids, dtype=np.int32), learned
