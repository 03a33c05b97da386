"""What to fetch, and which split of a hub data set where nobody says."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.documents import DatasetInputs
from finetune_contract.uris import HubId
from finetune_stages.sources.origin import DATASET, EVAL_DATASET, Origin
from finetune_stages.sources.uri import parse_uri

TRAIN_SPLITS = ("train", "train_sft", "train_gen", "training")
"""Splits to train on, the preferred first; without any of them the first split there is."""
EVAL_SPLITS = ("test", "validation", "eval", "dev", "test_sft", "test_gen", *TRAIN_SPLITS)
"""The same for dataset.evalUri: measuring on the rows that were trained on would be no measure."""


@dataclass(frozen=True)
class SourceRequest:
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


def source_requests(inputs: DatasetInputs) -> list[SourceRequest]:
    """Return the source of the rows, and the one of the held-out rows where it is another.

    Raises:
        StageError: a URI names nothing.
    """
    request = [SourceRequest(inputs.uri, DATASET, TRAIN_SPLITS, inputs.revision, inputs.split, inputs.sha256)]
    if inputs.eval_uri:
        revision = inputs.revision if _same_repository(inputs.uri, inputs.eval_uri) else None
        request.append(SourceRequest(inputs.eval_uri, EVAL_DATASET, EVAL_SPLITS, revision))
    return request


def _same_repository(uri: str, other: str) -> bool:
    first, second = parse_uri(uri, DATASET), parse_uri(other, EVAL_DATASET)
    return isinstance(first, HubId) and isinstance(second, HubId) and first.id == second.id
