"""A sample of the training rows as the model reads them, so that users see what is learned before training starts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune_contract.codec import encode
from finetune_contract.result import SAMPLE_BYTES, SAMPLE_ROWS, SamplePart, SampleRow
from finetune_stages.sdk.redaction import Redactor

from .labels import Tokens

_IN_FILE = 20_000
"""Largest number of characters of a row in the file of the workspace."""
_CONTEXT = 8
"""Number of tokens before a part that are decoded with it: some tokenizers decode the first token of a text without its space."""


class Sample:
    """The first rows of a training."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._redact = tokenizer, Redactor()
        self.rows: list[SampleRow] = []

    def add(self, location: tuple[int, int], tokens: Tokens) -> None:
        """Add a row with its location in the source, until the sample is complete."""
        if len(self.rows) < SAMPLE_ROWS:
            ids, learned = tokens
            parts = tuple(self._parts(ids.tolist(), learned))
            self.rows.append(SampleRow(*location, len(ids), int(learned.sum()), parts))

    def write(self, path: Path) -> None:
        """Write the rows into the workspace."""
        rows = [replace(row, parts=cut(row.parts, _IN_FILE)) for row in self.rows]
        path.write_text(json.dumps(encode(rows), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def short(self) -> tuple[SampleRow, ...]:
        """Return the rows within ``SAMPLE_BYTES`` bytes of JSON."""
        return tuple(_shortened(row, SAMPLE_BYTES // SAMPLE_ROWS) for row in self.rows)

    def _parts(self, ids: list[int], learned: Any) -> list[SamplePart]:
        changes = (np.flatnonzero(np.diff(learned.astype(np.int8))) + 1).tolist()
        bounds = [0, *changes, len(ids)]
        return [
            SamplePart(self._redact(self._text(ids, first, last)), bool(learned[first]))
            for first, last in itertools.pairwise(bounds)
        ]

    def _text(self, ids: list[int], first: int, last: int) -> str:
        start = max(0, first - _CONTEXT)
        before, whole = self._decoded(ids[start:first]), self._decoded(ids[start:last])
        return whole[len(before) :] if whole.startswith(before) else self._decoded(ids[first:last])

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def cut(parts: Sequence[SamplePart], most: int) -> tuple[SamplePart, ...]:
    """Return parts with at most ``most`` characters: the beginning and the end, with the number of those between."""
    total = sum(len(part.text or "") for part in parts)
    if total <= most:
        return tuple(parts)
    head, tail = most - most // 2, most // 2
    beginning = _first(parts, head)
    end = [replace(part, text=(part.text or "")[::-1]) for part in _first(_reversed(parts), tail)]
    return (*beginning, SamplePart(omitted=total - most), *reversed(end))


def _reversed(parts: Sequence[SamplePart]) -> list[SamplePart]:
    return [replace(part, text=(part.text or "")[::-1]) for part in reversed(parts)]


def _first(parts: Sequence[SamplePart], most: int) -> list[SamplePart]:
    """Return the first ``most`` characters."""
    found = []
    for part in parts:
        text = (part.text or "")[:most]
        if text:
            found.append(replace(part, text=text))
        most -= len(text)
    return found


def _shortened(row: SampleRow, most: int) -> SampleRow:
    """Return a row with as many characters as ``most`` bytes of JSON have room for."""
    total = sum(len(part.text or "") for part in row.parts)
    for characters in range(min(total, most), -1, -8):
        short = replace(row, parts=cut(row.parts, characters))
        if len(json.dumps(encode(short), ensure_ascii=False, separators=(",", ":")).encode()) < most:
            return short
    return replace(row, parts=(SamplePart(omitted=total),))
