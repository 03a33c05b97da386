"""What the ways to a model have in common: its entry in the cache, and the last steps before it is kept there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.workspace import CACHE_MODELS
from finetune_stages.sdk import Context, Seal, StageError
from finetune_stages.sources.progress import MEGABYTE

MARGIN = 64 * MEGABYTE
"""Bytes that stay free on the volume: results, logs, and what the file system itself needs."""
_FILE_MODE, _FOLDER_MODE = 0o664, 0o775


@dataclass(frozen=True)
class Obtained:
    """A model in the cache.

    Attributes:
        name: what messages call it.
        revision: commit of a hub model.
        reused: it lay there already.
    """

    entry: Path
    seal: Seal
    name: str
    revision: str | None = None
    reused: bool = False


def entry_path(context: Context, key: str) -> Path:
    """Return where the cache keeps the model of that key."""
    return context.path(f"{CACHE_MODELS}/{key}")


def require_room(context: Context, needed: int, model: str) -> None:
    """Refuse to start what cannot end.

    Raises:
        StageError: ``WorkspaceFull``.
    """
    free = shutil.disk_usage(context.workspace).free
    if needed + MARGIN > free:
        raise StageError(
            reasons.WORKSPACE_FULL,
            f"{model} needs {(needed + MARGIN) / MEGABYTE:,.0f} MB and the workspace has {free / MEGABYTE:,.0f} MB free; raise"
            " storage.size, or delete old runs and caches.",
        )


def open_to_group(folder: Path, files: Iterable[Path]) -> None:
    """Let the next stage, which may run as another user of the group, read (and a later one replace) the files."""
    for file in files:
        file.chmod(_FILE_MODE)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(_FOLDER_MODE)
