"""Volumes of claims in the pod of a stage."""

from __future__ import annotations

import os
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.documents import CLAIMS_VARIABLE
from finetune_contract.uris import ClaimPath
from finetune_stages.sdk import StageError

from .origin import Origin


def mount_point(source: ClaimPath, origin: Origin) -> Path:
    """Return the directory at which the volume of a claim is mounted.

    Raises:
        StageError: ``BadDocument``: the claim is not mounted.
    """
    claims = os.environ.get(CLAIMS_VARIABLE)
    if not claims or not (Path(claims) / source.claim).is_dir():
        raise StageError(
            reasons.BAD_DOCUMENT,
            f"{origin.field}: claim {source.claim} is not mounted below the directory in {CLAIMS_VARIABLE}; mount it there.",
        )
    return Path(claims) / source.claim


def require_inside(path: Path, root: Path, name: str, origin: Origin) -> None:
    """Check that a path, with all its links resolved, is on the volume at ``root``; ``name`` is the path in messages.

    Raises:
        StageError: ``origin.not_found``.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        what = "directory" if path.is_dir() else "file"
        raise StageError(
            origin.not_found,
            f"{origin.field}: {name} is a link to a {what} outside of the claim; set a {what} on the claim.",
        )
