"""Tokenized rows of stage *tokenization*: flat arrays that every process memory-maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.workspace import RunLayout
from finetune_stages.sdk import StageError

from .tokens import tokens_seal

IGNORED = -100
"""Label of a token that is not learned: the value that torch's cross entropy ignores."""


@dataclass(frozen=True)
class Rows:
    """Tokenized rows.

    Attributes:
        tokens: concatenated token ids of all rows, int32.
        learned: whether each token is a label, of the same length.
        offsets: start of each row and end of the last one: number of rows plus one.
        dropped: number of rows that stage *tokenization* left out.
    """

    tokens: NDArray[np.int32]
    learned: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each row."""
        return np.diff(self.offsets)

    @property
    def labels(self) -> NDArray[np.int32]:
        """Labels of all tokens: the token id if it is learned, else :data:`IGNORED`."""
        return np.where(self.learned, self.tokens, np.int32(IGNORED))

    @classmethod
    def open(cls, workspace: Path, layout: RunLayout, longest: int) -> Rows:
        """Memory-map the run's tokens; a row may have ``longest`` tokens.

        Raises:
            StageError: ``DatasetNotFound``: there are none. ``BadTrainingValue``: a row is longer.
        """
        seal = tokens_seal(workspace, layout)
        names = (layout.token_ids, layout.learned_tokens, layout.token_offsets)
        try:
            tokens, learned, offsets = (np.load(workspace / name, mmap_mode="r", allow_pickle=False) for name in names)
        except (OSError, ValueError) as error:
            raise StageError(
                reasons.DATASET_NOT_FOUND, f"{layout.tokens}: it cannot be read ({error}); rerun from stage training."
            ) from error
        rows = cls(tokens, learned, offsets, int(seal.note.get("leftOut", 0)))
        found = int(rows.lengths.max(initial=0))
        if found > longest:
            raise StageError(
                reasons.BAD_TRAINING_VALUE,
                f"training.maxSeqLen: a row in {layout.tokens} has {found:,} tokens, more than {longest:,}; rerun from stage training.",
            )
        return rows
