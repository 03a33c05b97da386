"""What to fetch, and which split of a hub data set where nobody says."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_stages.sources.origin import Origin

TRAIN_SPLITS = ("train", "train_sft", "train_gen", "training")
"""Splits to train on, the preferred first; without any of them the first split there is."""
EVAL_SPLITS = ("test", "validation", "eval", "dev", "test_sft", "test_gen", *TRAIN_SPLITS)
"""The same for dataset.evalUri: measuring on the rows that were trained on would be no measure."""


@dataclass(frozen=True)
class Wanted:
    """What to fetch: the inputs that concern one of the two sources.

    Attributes:
        origin: with which reasons fetching it can fail.
        revision, split: of a hub data set.
        preferred_splits: where ``split`` is not given.
        sha256: digest that the file must have.
    """

    uri: str
    origin: Origin
    preferred_splits: tuple[str, ...]
    revision: str | None = None
    split: str | None = None
    sha256: str | None = None
