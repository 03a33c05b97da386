"""Packing of several rows into one sequence without attention between rows.

Each row's positions begin at 0, and there is no attention mask: from that transformers builds a block-diagonal one
(``masking_utils.find_packed_sequence_indices``) for all of its attention implementations. Models with state-space layers or with their
own code might not support this, so each model is tested before training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .rows import IGNORED, Rows

_EXACT = 1e-3
_ROUNDED = 0.1
"""Tolerance of a row's logits compared with those of the row alone, relative to the largest: 16-bit rounding is no leak."""


class PackedRows(Dataset):  # type: ignore[misc]
    """Dataset of sequences by lists of row numbers; the last row is a filler of one token without a label."""

    def __init__(self, rows: Rows) -> None:
        self._offsets = np.append(rows.offsets, rows.offsets[-1] + 1)
        self._tokens = np.append(rows.tokens, rows.tokens[:1])
        self._labels = np.append(rows.labels, np.int32(IGNORED))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        """Return one sequence for :class:`PackedCollator`."""
        places = [slice(int(self._offsets[row]), int(self._offsets[row + 1])) for row in rows]
        tokens, labels = (np.concatenate([values[place] for place in places]) for values in (self._tokens, self._labels))
        return {
            "input_ids": tokens.astype(np.int64), "labels": labels.astype(np.int64),
            "seq_lengths": [place.stop - place.start for place in places],
        }  # fmt: skip


class PaddedCollator:
    """Collator of rows: they are padded on the right to the longest."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``labels`` and ``attention_mask``, each (rows, positions)."""
        return {
            "input_ids": _padded([row["input_ids"] for row in rows], self._padding),
            "labels": _padded([row["labels"] for row in rows], IGNORED),
            "attention_mask": _padded([np.ones(len(row["input_ids"]), dtype=np.int64) for row in rows], 0),
        }


class PackedCollator:
    """Collator of sequences, with positions and without an attention mask, which would hide the rows' boundaries."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, sequences: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``labels`` and ``position_ids``, each (sequences, positions)."""
        positions = [np.concatenate([np.arange(length) for length in sequence["seq_lengths"]]) for sequence in sequences]
        return {
            "input_ids": _padded([sequence["input_ids"] for sequence in sequences], self._padding),
            "labels": _padded([sequence["labels"] for sequence in sequences], IGNORED),
            "position_ids": _padded(positions, 0),  # each token of padding is a row of its own, without a label
        }


def _padded(lists: list[Any], value: int) -> Tensor:
    """Return lists of numbers as one matrix (lists, longest list), with ``value`` at the end of shorter ones."""
    matrix = np.full((len(lists), max(map(len, lists))), value, dtype=np.int64)
    for row, numbers in zip(matrix, lists, strict=True):
        row[: len(numbers)] = numbers
    return torch.from_numpy(matrix)


def rows_with_labels(batch: dict[str, Tensor]) -> int:
    """Return the number of rows with a label in a micro-batch, packed or not. A filler has none."""
    learned = batch["labels"] != IGNORED
    if "position_ids" not in batch:
        return int(learned.any(dim=1).sum())
    row = (batch["position_ids"] == 0).flatten().cumsum(0)
    return int(torch.unique(row[learned.flatten()]).numel())


def require_separation(model: Any, rows: Rows) -> None:
    """Check that this model computes the same logits for a row in a packed sequence as for the row alone.

    Raises:
        StageError: ``BadTrainingValue``.
    """
    first, second = (int(row) for row in np.resize(np.argsort(rows.lengths, kind="stable")[:2], 2))
    packed = PackedRows(rows)
    model.eval()
    try:
        alone = _logits(model, packed, [second])
        behind = _logits(model, packed, [first, second])[:, -alone.shape[1] :]
    except (TypeError, ValueError) as error:  # a forward method without position_ids
        raise _not_possible(f"it does not take positions ({' '.join(str(error).split())[:200]})") from error
    difference = float((behind - alone).abs().max() / alone.abs().max())
    if not difference < (_EXACT if model.dtype in (torch.float32, torch.float64) else _ROUNDED):
        raise _not_possible(f"a packed row has other logits than the same row alone (by {difference:.1%})")


def _logits(model: Any, packed: PackedRows, rows: list[int]) -> Tensor:
    """Return logits (1, positions, vocabulary), in 32 bits."""
    sequence = packed[rows]
    tokens = torch.from_numpy(sequence["input_ids"])[None].to(model.device)
    positions = torch.cat([torch.arange(length) for length in sequence["seq_lengths"]])[None].to(model.device)
    with torch.no_grad():
        logits: Tensor = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    return logits.float()


def _not_possible(why: str) -> StageError:
    return StageError(
        reasons.BAD_TRAINING_VALUE, f"training.lora.packing: this model does not support it, {why}; set it to false."
    )
