"""Which rows are used and which are held out: the same ones as in the OpenShift AI pipelines, for the same seed."""

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
    """Return positions of the rows to use among ``total``; ``random`` draws them in the order of ``random.sample``."""
    if not 0 < inputs.subset < total:
        return range(total)
    if inputs.subset_mode == "first":
        return range(inputs.subset)
    return random.Random(inputs.seed).sample(range(total), inputs.subset)  # noqa: S311 - no secret is drawn


def train_and_eval(total: int, ratio: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions of the rows to train on and of those to hold out.

    These are the rows of ``datasets.Dataset.train_test_split(test_size=1 - ratio, seed=seed)``, drawn without importing that
    library, which takes longer than all else here: ``ceil((1 - ratio) * total)`` rows from the front of a permutation are held
    out, the rest is trained on. The float error of ``1 - ratio`` is part of it: 10 rows at 0.7 give 6 and 4.

    Raises:
        StageError: ``TooFewRows``: nothing is left to train on.
    """
    if ratio >= 1:
        return np.arange(total, dtype=np.int64), np.empty(0, dtype=np.int64)
    held_out = math.ceil((1 - ratio) * total)
    if held_out >= total:
        raise StageError(
            reasons.TOO_FEW_ROWS,
            f"With dataset.trainSplit {ratio:g} the only row would be held out and none trained on; use more rows, or set it to 1."
            if total == 1
            else f"With dataset.trainSplit {ratio:g} all {total:,} rows would be held out; use more rows, or raise it.",
        )
    order = np.random.default_rng(seed).permutation(total)
    return order[held_out:], order[:held_out]
