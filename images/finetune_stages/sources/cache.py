"""Cache that all runs of a volume share: sealed directories, named by the digest of their inputs."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from finetune_stages.sdk import Context, Seal, publish_directory, read_seal, verify_seal
from finetune_stages.sdk.workspace import Readers

from .cache_limit import mark_used
from .progress import ProgressCounter

MARK_SECONDS = 60
"""Interval in which an entry is marked as used while it is verified."""


def verified_entry(context: Context, entry: Path, readers: Readers | None = None) -> Seal | None:
    """Verify every byte of an entry and return its seal; ``None`` if it is missing or damaged. ``readers`` receive the bytes, too."""
    stated = read_seal(entry)
    if stated is None:
        return None
    total = sum(file.size for file in stated.files.values())
    counter = ProgressCounter(context, "verifying the cache entry", total, high=0)
    seal = verify_seal(entry, advance=_marking(entry, counter), readers=readers)
    mark_used(entry)  # from now on there is time to link it
    return seal


def _marking(entry: Path, advance: Callable[[int], object]) -> Callable[[int], object]:
    """Mark the entry as used, and again while ``advance`` is called: a verification may take longer than an unused entry is kept."""
    mark_used(entry)
    marked = time.monotonic()

    def advanced(count: int) -> None:
        nonlocal marked
        if time.monotonic() - marked >= MARK_SECONDS:
            mark_used(entry)
            marked = time.monotonic()
        advance(count)

    return advanced


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
