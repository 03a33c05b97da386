"""The two kinds of things that stages fetch, and the reasons with which fetching each can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_contract import reasons
from finetune_contract.reasons import Reason


@dataclass(frozen=True)
class Origin:
    """A kind of thing to fetch.

    Attributes:
        what: the word for it in messages.
        field: the field of the resource that names it.
        repo_type: the hub's word for it.
        has_configurations: whether ``id:configuration`` has a meaning.
    """

    what: str
    field: str
    repo_type: Literal["dataset", "model"]
    has_configurations: bool
    not_found: Reason
    forbidden: Reason
    unreachable: Reason


DATASET = Origin(
    "data set", "dataset.uri", "dataset", True,
    reasons.DATASET_NOT_FOUND, reasons.DATASET_FORBIDDEN, reasons.DATASET_UNREACHABLE,
)  # fmt: skip
EVAL_DATASET = Origin(
    "data set", "dataset.evalUri", "dataset", True,
    reasons.DATASET_NOT_FOUND, reasons.DATASET_FORBIDDEN, reasons.DATASET_UNREACHABLE,
)  # fmt: skip
MODEL = Origin(
    "model", "model.uri", "model", False, reasons.MODEL_NOT_FOUND, reasons.MODEL_FORBIDDEN, reasons.MODEL_UNREACHABLE,
)  # fmt: skip
