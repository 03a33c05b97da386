"""Selection of the used and the held-out rows: the same ones as in the OpenShift AI pipelines, for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_stages.sdk import StageError


def subset(total: int, inputs: DatasetInputs) -> Sequence[int]:
    """Return the positions of the rows to use among ``total``; ``random`` draws them in the order of ``random.sample``."""
    if not 0 < inputs.subset < total:
        return range(total)
    if inputs.subset_mode == "first":
        return range(inputs.subset)
    return random.Random(inputs.seed).sample(range(total), inputs.subset)  # noqa: S311 - no secret is drawn


def train_and_eval(total: int, ratio: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the training rows and of the held-out rows.

    The rows are those of ``datasets.Dataset.train_test_split(test_size=1 - ratio, seed=seed)``, computed without that library,
    whose import is slow: the first ``ceil((1 - ratio) * total)`` rows of a permutation are held out. The rounding error of
    ``1 - ratio`` is reproduced: 10 rows at 0.7 give 6 and 4.

    Raises:
        StageError: ``TooFewRows``: no training row is left.
    """
    if ratio >= 1:
        return np.arange(total, dtype=np.int64), np.empty(0, dtype=np.int64)
    held_out = math.ceil((1 - ratio) * total)
    if held_out >= total:
        raise StageError(
            reasons.TOO_FEW_ROWS,
            f"dataset.trainSplit: with {ratio:g} the only row is held out and none is left for training; use more rows, or set it to 1."
            if total == 1
            else f"dataset.trainSplit: with {ratio:g} all {total:,} rows are held out; use more rows, or raise it.",
        )
    order = np.random.default_rng(seed).permutation(total)
    return order[held_out:], order[:held_out]
