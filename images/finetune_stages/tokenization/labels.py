"""Rendered rows to tokens, and which of them are labels."""

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
"""Ids of a row, and whether each is a label."""


@dataclass(frozen=True)
class EndTokens:
    """Ids of tokens that can end a turn: those that generation stops at, and all special ones."""

    stops: frozenset[int]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> EndTokens:
        """Return those of a model directory that a tokenizer was loaded from."""
        stops = {tokenizer.eos_token_id}
        try:
            generation = json.loads((Path(tokenizer.name_or_path) / "generation_config.json").read_bytes())
            more = generation.get("eos_token_id")
            stops.update(more if isinstance(more, list) else [more])
        except (OSError, ValueError, AttributeError):  # a model without one
            pass
        known = frozenset(stop for stop in stops if isinstance(stop, int))
        return cls(known, known | frozenset(tokenizer.all_special_ids))


def encode(rendered: Sequence[Rendered], tokenizer: Any, ends: EndTokens) -> Iterator[Tokens]:
    """Tokens and labels of some rows, in their order. The tokenizer takes them together, because it has threads of its own."""
    if not rendered:
        return
    encoded = tokenizer([item.text for item in rendered], add_special_tokens=False, return_offsets_mapping=True)
    for item, ids, places in zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        yield np.array(ids, dtype=np.int32), _labels(item, ids, np.array(places, dtype=np.int64).reshape(-1, 2), ends)


def _labels(item: Rendered, ids: Sequence[int], places: NDArray[np.int64], ends: EndTokens) -> NDArray[np.bool_]:
    """Return which tokens are learned. ``places`` are the characters of each token, (tokens, 2)."""
    learned = np.zeros(len(ids), dtype=bool)
    for span in item.spans:
        first, last = _tokens_of(span, ids, places, ends)
        learned[first:last] = True
    learned[:1] = False  # the first token is predicted from nothing
    return learned


def _tokens_of(span: Span, ids: Sequence[int], places: NDArray[np.int64], ends: EndTokens) -> tuple[int, int]:
    """Return the tokens of a turn, up to and with its end-of-turn token and without the line break that templates write after it.

    A token belongs to the turn if one of its characters does: byte-level tokenizers cut their offsets at white space, so that a
    look-up by a single character finds nothing where a reply begins or ends with a space.
    """
    first = int(np.searchsorted(places[:, 1], span.start, side="right"))
    content_end, end = (int(np.searchsorted(places[:, 0], place, side="left")) for place in (span.content_end, span.end))
    if not span.exact:
        wanted = ends.stops if span.content_end == span.start else ends.special
        return first, next((index + 1 for index in range(content_end, end) if ids[index] in wanted), content_end)
    if span.content_end < span.end:  # not marked by the template, which is taken at its word
        # Behind the content, if that is known; else from behind, because a tool call may hold the text of an end-of-turn token.
        behind = range(content_end, end) if span.content_end > span.start else ()
        stop = next((index for index in (*behind, *reversed(range(first, end))) if ids[index] in ends.stops), None)
        if stop is not None:
            return first, stop + 1
    if end < len(ids) and ids[end] in ends.stops:  # the template closes its mark before the end-of-turn token
        return first, end + 1
    return first, end
