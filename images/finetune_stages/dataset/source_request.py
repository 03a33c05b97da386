"""Requests for the data sources, and the default splits of hub datasets."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.documents import DatasetInputs
from finetune_contract.uris import HubId
from finetune_stages.sources.origin import DATASET, EVAL_DATASET, Origin
from finetune_stages.sources.uri import parse_uri

TRAIN_SPLITS = ("train", "train_sft", "train_gen", "training")
"""Default splits to train on, in order of preference; if none exists, the first split is used."""
EVAL_SPLITS = ("test", "validation", "eval", "dev", "test_sft", "test_gen", *TRAIN_SPLITS)
"""Default splits for dataset.evalUri; training splits come last, because scores on trained rows are not meaningful."""


@dataclass(frozen=True)
class SourceRequest:
    """The inputs for one of the two sources.

    Attributes:
        origin: field and reasons for failures.
        revision, split: for a hub dataset.
        preferred_splits: defaults if ``split`` is not set.
        sha256: expected digest of the file.
        endpoint, region: of the S3 server.
    """

    uri: str
    origin: Origin
    preferred_splits: tuple[str, ...]
    revision: str | None = None
    split: str | None = None
    sha256: str | None = None
    endpoint: str | None = None
    region: str | None = None


def source_requests(inputs: DatasetInputs) -> list[SourceRequest]:
    """Return the request for the training rows, and one for the held-out rows if they have their own source.

    Raises:
        StageError: A URI is malformed.
    """
    server = {"endpoint": inputs.endpoint, "region": inputs.region}
    request = [SourceRequest(inputs.uri, DATASET, TRAIN_SPLITS, inputs.revision, inputs.split, inputs.sha256, **server)]
    if inputs.eval_uri:
        revision = inputs.revision if _same_repository(inputs.uri, inputs.eval_uri) else None
        request.append(SourceRequest(inputs.eval_uri, EVAL_DATASET, EVAL_SPLITS, revision, **server))
    return request


def _same_repository(uri: str, other: str) -> bool:
    first, second = parse_uri(uri, DATASET), parse_uri(other, EVAL_DATASET)
    return isinstance(first, HubId) and isinstance(second, HubId) and first.id == second.id
