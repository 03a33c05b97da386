"""Selection of the used and the held-out rows: for ``random``, the same ones as in the OpenShift AI pipelines, for the same seed.

The other ways go through the same permutation of the rows, so that they depend on the seed and on the rows only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_stages.sdk import StageError

Parts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of the training rows and of the held-out rows."""


TOLERATED = 0.1
"""Share by which the number of held-out rows may differ from the expected one without a warning."""
SAME_VALUE = "dataset.splitField: all rows have the same value, so that none can be held out; use another column, or set dataset.splitBy to random."


def subset(total: int, inputs: DatasetInputs) -> Sequence[int]:
    """Return the positions of the rows to use among ``total``; ``random`` draws them in the order of ``random.sample``."""
    if not 0 < inputs.subset < total:
        return range(total)
    if inputs.subset_mode == "first":
        return range(inputs.subset)
    return random.Random(inputs.seed).sample(range(total), inputs.subset)  # noqa: S311 - no secret is drawn


def train_and_eval(total: int, ratio: float, seed: int) -> Parts:
    """Return the positions of the training rows and of the held-out rows.

    The rows are those of ``datasets.Dataset.train_test_split(test_size=1 - ratio, seed=seed)``, computed without that library,
    whose import is slow: the first ``ceil((1 - ratio) * total)`` rows of a permutation are held out. The rounding error of
    ``1 - ratio`` is reproduced: 10 rows at 0.7 give 6 and 4.

    Raises:
        StageError: ``TooFewRows``: no training row is left.
    """
    if ratio >= 1:
        return np.arange(total, dtype=np.int64), np.empty(0, dtype=np.int64)
    held_out, order = _drawn(total, ratio, seed)
    return order[held_out:], order[:held_out]


def stratified(labels: NDArray[np.int64], ratio: float, seed: int) -> Parts:
    """Return the split in which each label has the same share of held-out rows, as far as numbers of rows allow.

    As many rows are held out as by :func:`train_and_eval`. A label has its share rounded down; the rows that are missing are those
    of the labels with the largest remainders, and of equal ones, of the label that occurs first. ``labels``: int64, shape (rows,),
    numbered from 0 in the order of the rows.

    Raises:
        StageError: ``TooFewRows``: no training row is left.
    """
    if ratio >= 1:
        return train_and_eval(len(labels), ratio, seed)
    held_out, order = _drawn(len(labels), ratio, seed)
    shares = np.bincount(labels) * held_out
    quotas, remainders = np.divmod(shares, len(labels))
    largest = np.argsort(-remainders, kind="stable")[: held_out - int(quotas.sum())]
    quotas[largest] += 1
    return _divided(order, _rank(labels[order]) < quotas[labels[order]])


def grouped(labels: NDArray[np.int64], ratio: float, seed: int, one_group: str = SAME_VALUE) -> Parts:
    """Return the split in which all rows with one label are on one side.

    At most as many rows are held out as by :func:`train_and_eval`: groups are taken in the order in which the permutation meets them,
    and one that would exceed the number is passed over. If every group exceeds it, the smallest one is held out. ``labels``: see
    :func:`stratified`; ``one_group`` is the message if there is one group only.

    Raises:
        StageError: ``TooFewRows``: there is one group only, or no training row is left.
    """
    if ratio >= 1:
        return train_and_eval(len(labels), ratio, seed)
    most, order = _drawn(len(labels), ratio, seed)
    sizes = np.bincount(labels)
    if len(sizes) == 1:
        raise StageError(
            reasons.TOO_FEW_ROWS,
            one_group,
        )
    met = labels[order][_rank(labels[order]) == 0]
    taken = np.zeros(len(sizes), dtype=np.bool_)
    count = 0
    for label in met.tolist():
        if count + sizes[label] <= most:
            taken[label] = True
            count += sizes[label]
    if not count:
        taken[met[np.argmin(sizes[met])]] = True
    return _divided(order, taken[labels[order]])


def _drawn(total: int, ratio: float, seed: int) -> tuple[int, NDArray[np.int64]]:
    """Return the number of held-out rows and a permutation of all rows.

    Raises:
        StageError: ``TooFewRows``: no training row is left.
    """
    held_out = math.ceil((1 - ratio) * total)
    if held_out >= total:
        raise StageError(
            reasons.TOO_FEW_ROWS,
            f"dataset.trainSplit: with {ratio:g} the only row is held out and none is left for training; use more rows, or set it to 1."
            if total == 1
            else f"dataset.trainSplit: with {ratio:g} all {total:,} rows are held out; use more rows, or raise it.",
        )
    return held_out, np.random.default_rng(seed).permutation(total)


def _rank(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each label occurs before its place."""
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))[:-1]])
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - starts[labels[order]]
    return ranks


def _divided(order: NDArray[np.int64], held_out: NDArray[np.bool_]) -> Parts:
    return order[~held_out], order[held_out]
