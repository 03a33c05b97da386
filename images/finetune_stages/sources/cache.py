"""Cache that all runs of a volume share: sealed directories, named by the digest of their inputs."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from finetune_stages.sdk import Context, Seal, publish_directory, read_seal, verify_seal
from finetune_stages.sdk.workspace import Readers

from .cache_limit import mark_used
from .progress import ProgressCounter


def verified_entry(context: Context, entry: Path, readers: Readers | None = None) -> Seal | None:
    """Verify every byte of an entry and return its seal; ``None`` if it is missing or damaged. ``readers`` receive the bytes, too."""
    stated = read_seal(entry)
    if stated is None:
        return None
    mark_used(entry)
    total = sum(file.size for file in stated.files.values())
    return verify_seal(entry, advance=ProgressCounter(context, "verifying the cache entry", total, high=0), readers=readers)


def store_entry(source: Path, entry: Path) -> None:
    """Move a sealed directory into the cache.

    An entry that another process has stored meanwhile is kept, because it may be in use. A damaged entry is replaced.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(entry)  # atomic; fails if the entry is a directory that is not empty
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if verify_seal(entry) is None:
            publish_directory(source, entry)
        else:
            shutil.rmtree(source)
