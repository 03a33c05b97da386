"""The directory of tokens that stage *tokenization* published. Standard library only."""

from __future__ import annotations

from pathlib import Path

from finetune_contract import reasons
from finetune_contract.workspace import RunLayout
from finetune_stages.sdk import Seal, StageError, read_seal


def tokens_seal(workspace: Path, layout: RunLayout) -> Seal:
    """Return the seal of the run's tokens.

    Raises:
        StageError: ``DatasetNotFound``: there is no such directory.
    """
    seal = read_seal(workspace / layout.tokens)
    if seal is None:
        raise StageError(reasons.DATASET_NOT_FOUND, f"{layout.tokens}: it is not in the workspace; rerun from stage training.")
    return seal
