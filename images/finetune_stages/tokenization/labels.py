"""Tokenization of rendered rows, and their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_stages.chat.renderer import Rendered, Span

Tokens = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""Token ids of a row, and whether each is a label."""


@dataclass(frozen=True)
class EndTokens:
    """Ids of tokens that can end a turn: stop tokens of generation, and all special tokens."""

    stops: frozenset[int]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> EndTokens:
        """Return the end tokens of a tokenizer and of its model directory."""
        stops = {tokenizer.eos_token_id}
        try:
            generation = json.loads((Path(tokenizer.name_or_path) / "generation_config.json").read_bytes())
            more = generation.get("eos_token_id")
            stops.update(more if isinstance(more, list) else [more])
        except (OSError, ValueError, AttributeError):  # a model without generation_config.json
            pass
        known = frozenset(stop for stop in stops if isinstance(stop, int))
        return cls(known, known | frozenset(tokenizer.all_special_ids))


def encode(rendered: Sequence[Rendered], tokenizer: Any, ends: EndTokens) -> Iterator[Tokens]:
    """Yield tokens and labels of rows, in order. The tokenizer gets them as one batch, because it has its own threads."""
    if not rendered:
        return
    encoded = tokenizer([item.text for item in rendered], add_special_tokens=False, return_offsets_mapping=True)
    for item, ids, offsets in zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        yield np.array(ids, dtype=np.int32), _labels(item, ids, np.array(offsets, dtype=np.int64).reshape(-1, 2), ends)


def _labels(item: Rendered, ids: Sequence[int], offsets: NDArray[np.int64], ends: EndTokens) -> NDArray[np.bool_]:
    """Return which tokens are learned. ``offsets`` has the character range of each token, (tokens, 2)."""
    learned = np.zeros(len(ids), dtype=bool)
    for span in item.spans:
        first, last = _tokens_of(span, ids, offsets, ends)
        learned[first:last] = True
    learned[:1] = False  # the first token has no context
    return learned


def _tokens_of(span: Span, ids: Sequence[int], offsets: NDArray[np.int64], ends: EndTokens) -> tuple[int, int]:
    """Return the token range of a turn, including its end-of-turn token but not the line break that templates write after it.

    A token belongs to the turn if one of its characters does: the offsets of byte-level tokenizers exclude white space, so that a
    lookup of a single character fails for a reply that begins or ends with a space.
    """
    first = int(np.searchsorted(offsets[:, 1], span.start, side="right"))
    content_end, end = (int(np.searchsorted(offsets[:, 0], position, side="left")) for position in (span.content_end, span.end))
    if not span.exact:
        stops = ends.stops if span.content_end == span.start else ends.special
        return first, next((index + 1 for index in range(content_end, end) if ids[index] in stops), content_end)
    if span.content_end < span.end:  # a derived turn, not one that the template marks
        # After the content, if that is known; else from the end, because a tool call may have the text of an end-of-turn token.
        after = range(content_end, end) if span.content_end > span.start else ()
        stop = next((index for index in (*after, *reversed(range(first, end))) if ids[index] in ends.stops), None)
        if stop is not None:
            return first, stop + 1
    if end < len(ids) and ids[end] in ends.stops:  # the template closes its mark before the end-of-turn token
        return first, end + 1
    return first, end
