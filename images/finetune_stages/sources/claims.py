"""Volumes of claims in the pod of a stage."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from finetune_contract import reasons
from finetune_contract.documents import CLAIMS_VARIABLE
from finetune_contract.uris import ClaimPath
from finetune_stages.sdk import StageError

from .origin import Origin


@dataclass(frozen=True)
class LocalSource:
    """A path of this machine, or of the volume of a claim.

    Attributes:
        name: the path in messages.
        root: the mount point of the claim, which no file may be outside of; ``None`` for a path of this machine.
    """

    path: Path
    name: str
    root: Path | None = None

    @classmethod
    def of(cls, source: Path | ClaimPath, origin: Origin) -> Self:
        """Return the path of a parsed URI.

        Raises:
            StageError: ``BadDocument``: the claim is not mounted.
        """
        if isinstance(source, Path):
            return cls(source, str(source))
        root = mount_point(source, origin)
        return cls(root / source.path, source.shown.rstrip("/"), root)

    def require_inside(self, path: Path, name: str, origin: Origin) -> None:
        """Check that a path, with all its links resolved, is on the volume of the claim; ``name`` is the path in messages.

        Raises:
            StageError: ``origin.not_found``.
        """
        if self.root and not path.resolve().is_relative_to(self.root.resolve()):
            what = "directory" if path.is_dir() else "file"
            raise StageError(
                origin.not_found,
                f"{origin.field}: {name} is a link to a {what} outside of the claim; set a {what} on the claim.",
            )


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
