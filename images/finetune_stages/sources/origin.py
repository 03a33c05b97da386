"""Kinds of inputs that stages fetch, with their fields and reasons for failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_contract import reasons
from finetune_contract.reasons import Reason


@dataclass(frozen=True)
class Origin:
    """A kind of input to fetch.

    Attributes:
        what: its name in messages.
        field: the field of the resource with its URI.
        repo_type: the hub's type of repository; also the section of the resource.
        untrusted: the certificate of the server is not trusted.
        changed: the content changed while it was read.
        damaged: the content is not what its format requires, or is not safe to read.
    """

    what: str
    field: str
    repo_type: Literal["dataset", "model"]
    not_found: Reason
    forbidden: Reason
    unreachable: Reason
    untrusted: Reason
    changed: Reason
    damaged: Reason

    @property
    def secret(self) -> str:
        """The Secrets with keys for S3, in messages."""
        return f"the Secret that {self.repo_type}.secretRef names (default: s3-secret)"


DATASET = Origin(
    "dataset", "dataset.uri", "dataset",
    reasons.DATASET_NOT_FOUND, reasons.DATASET_FORBIDDEN, reasons.DATASET_UNREACHABLE, reasons.DATASET_UNTRUSTED, reasons.DATASET_CHANGED,
    reasons.DATASET_UNREADABLE,
)  # fmt: skip
EVAL_DATASET = Origin(
    "dataset", "dataset.evalUri", "dataset",
    reasons.DATASET_NOT_FOUND, reasons.DATASET_FORBIDDEN, reasons.DATASET_UNREACHABLE, reasons.DATASET_UNTRUSTED, reasons.DATASET_CHANGED,
    reasons.DATASET_UNREADABLE,
)  # fmt: skip
MODEL = Origin(
    "model", "model.uri", "model",
    reasons.MODEL_NOT_FOUND, reasons.MODEL_FORBIDDEN, reasons.MODEL_UNREACHABLE, reasons.MODEL_UNTRUSTED, reasons.MODEL_CORRUPT,
    reasons.MODEL_CORRUPT,
)  # fmt: skip
