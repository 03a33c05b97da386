"""Cache entries of models, which hub and local models share."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.documents import Scalar
from finetune_contract.workspace import CACHE_MODELS
from finetune_stages.sdk import Context, Seal, StageError
from finetune_stages.sources.progress import MEGABYTE

MARGIN = 64 * MEGABYTE
"""Bytes that are kept free on the volume, for results, logs and the file system."""
_FILE_MODE, _FOLDER_MODE = 0o664, 0o775


@dataclass(frozen=True)
class Obtained:
    """A model in the cache.

    Attributes:
        name: name in messages.
        revision: commit of a hub model, or digest of an image.
        fingerprint: values that detect a change of the source; empty for the digest of the files.
        reused: true if it was in the cache already.
    """

    entry: Path
    seal: Seal
    name: str
    revision: str | None = None
    reused: bool = False
    fingerprint: Mapping[str, Scalar] = field(default_factory=dict)


def entry_path(context: Context, key: str) -> Path:
    """Return the path of a model's cache entry."""
    return context.path(f"{CACHE_MODELS}/{key}")


def require_room(context: Context, needed: int, model: str) -> None:
    """Check that the volume has enough free space for a model.

    Raises:
        StageError: ``WorkspaceFull``.
    """
    free = shutil.disk_usage(context.workspace).free
    if needed + MARGIN > free:
        raise StageError(
            reasons.WORKSPACE_FULL,
            f"{model}: it needs {(needed + MARGIN) / MEGABYTE:,.0f} MB, and the workspace has {free / MEGABYTE:,.0f} MB free; raise"
            " storage.size, or delete old runs and caches.",
        )


def open_to_group(folder: Path, files: Iterable[Path]) -> None:
    """Make the files readable and writable for the group, because later stages may run as other users of the group."""
    for file in files:
        file.chmod(_FILE_MODE)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(_FOLDER_MODE)
