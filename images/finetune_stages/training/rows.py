"""Chat rows to tokens and labels, once and for all processes: flat arrays that are mapped from a file, not lists of lists."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.kit import StageError

from .chat import ChatRenderer, Rendered, Row, Span

_CHUNK = 512
"""Rows that are handed to the tokenizer at once: enough for its threads, few enough to report on the way."""

IGNORED = -100
"""Label of a token that is not learned: the value that torch's cross entropy leaves out."""

Seen = Callable[[int], object]
"""Told how many rows are done."""


@dataclass(frozen=True)
class Rows:
    """Tokenised rows.

    Attributes:
        tokens: ids of all rows, one behind the other, int32.
        learned: whether each token is a label, of the same length.
        offsets: where each row begins, and where the last one ends: one more than there are rows.
        too_long, without_label: rows that were left out.
    """

    tokens: NDArray[np.int32]
    learned: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    too_long: int = 0
    without_label: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.offsets)

    @property
    def dropped(self) -> int:
        """Rows that were left out."""
        return self.too_long + self.without_label

    @property
    def labels(self) -> NDArray[np.int32]:
        """The labels of all tokens: the token itself where it is learned, :data:`IGNORED` elsewhere."""
        return np.where(self.learned, self.tokens, np.int32(IGNORED))

    def save(self, path: Path) -> None:
        """Write them for the other processes."""
        left_out = np.array([self.too_long, self.without_label])
        np.savez(path, tokens=self.tokens, learned=self.learned, offsets=self.offsets, left_out=left_out)

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            return cls(file["tokens"], file["learned"], file["offsets"], *map(int, file["left_out"]))


def count_rows(path: Path) -> int:
    """Lines of a JSON Lines file."""
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def read_rows(path: Path) -> Iterator[Row]:
    """The chat rows of a JSON Lines file, one after the other.

    Raises:
        StageError: ``BadRow``: a line is no object with messages.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                fine = all(isinstance(message["role"], str) for message in row["messages"]) and bool(row["messages"])
            except (ValueError, TypeError, KeyError):
                fine = False
            if not fine:
                raise StageError(reasons.BAD_ROW, f"Row {number} of {path.name} is no chat conversation: prepare the data again.")
            yield row


def tokenise(rows: Iterable[Row], tokenizer: Any, renderer: ChatRenderer, longest: int, seen: Seen) -> Rows:
    """Tokens and labels of all rows that can be trained on, in their order.

    Rows of more than ``longest`` tokens are left out, and rows without a label.

    Raises:
        StageError: ``NoTrainableRows``, or what :meth:`ChatRenderer.render` raises.
    """
    ends = _EndTokens.of(tokenizer)
    tokens: list[NDArray[np.int32]] = []
    learned: list[NDArray[np.bool_]] = []
    too_long = without_label = 0
    for ids, labels in _encoded(rows, tokenizer, renderer, ends, seen):
        if len(ids) > longest:
            too_long += 1
        elif not labels.any():
            without_label += 1
        else:
            tokens.append(ids)
            learned.append(labels)
    if not tokens:
        raise StageError(
            reasons.NO_TRAINABLE_ROWS,
            f"None of the {too_long + without_label} rows can be trained on: {too_long} have more than {longest} tokens"
            f" (training.maxSeqLen), {without_label} hold nothing to learn.",
        )
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])]).astype(np.int64)
    return Rows(np.concatenate(tokens), np.concatenate(learned), offsets, too_long, without_label)


@dataclass(frozen=True)
class _EndTokens:
    """Ids of tokens that can end a turn: those that generation stops at, and all special ones."""

    stops: frozenset[int]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> _EndTokens:
        stops = {tokenizer.eos_token_id}
        try:
            generation = json.loads((Path(tokenizer.name_or_path) / "generation_config.json").read_bytes())
            more = generation.get("eos_token_id")
            stops.update(more if isinstance(more, list) else [more])
        except (OSError, ValueError, AttributeError):  # a model without one
            pass
        known = frozenset(stop for stop in stops if isinstance(stop, int))
        return cls(known, known | frozenset(tokenizer.all_special_ids))


def _encoded(
    rows: Iterable[Row], tokenizer: Any, renderer: ChatRenderer, ends: _EndTokens, seen: Seen
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    done = 0
    for chunk in _chunks(rows, _CHUNK):
        rendered = [renderer.render(row, done + place) for place, row in enumerate(chunk, start=1)]
        encoded = tokenizer([item.text for item in rendered], add_special_tokens=False, return_offsets_mapping=True)
        for item, ids, places in zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            yield np.array(ids, dtype=np.int32), _labels(item, ids, np.array(places, dtype=np.int64).reshape(-1, 2), ends)
        done += len(chunk)
        seen(done)


def _labels(item: Rendered, ids: Sequence[int], places: NDArray[np.int64], ends: _EndTokens) -> NDArray[np.bool_]:
    """Which tokens are learned. ``places`` are the characters of each token, (tokens, 2)."""
    learned = np.zeros(len(ids), dtype=bool)
    for span in item.spans:
        first, last = _tokens_of(span, ids, places, ends)
        learned[first:last] = True
    learned[:1] = False  # the first token is predicted from nothing
    return learned


def _tokens_of(span: Span, ids: Sequence[int], places: NDArray[np.int64], ends: _EndTokens) -> tuple[int, int]:
    """The tokens of a turn, up to and with its end-of-turn token and without the line break that templates write after it.

    A token belongs to the turn if one of its characters does: byte-level tokenizers cut their offsets at white space, so that a
    look-up by a single character finds nothing where a reply begins or ends with a space.
    """
    first = int(np.searchsorted(places[:, 1], span.start, side="right"))
    said, end = (int(np.searchsorted(places[:, 0], place, side="left")) for place in (span.said, span.end))
    wanted = ends.stops if span.exact or span.said == span.start else ends.special
    for index in range(said, end):
        if ids[index] in wanted:
            return first, index + 1
    if not span.exact:
        return first, said
    if end < len(ids) and ids[end] in ends.stops:  # the template closes its mark before the end-of-turn token
        return first, end + 1
    return first, end


def _chunks(items: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
