"""The cache beside the runs: sealed directories by the digest of what they were made from, shared by all runs of a volume."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from finetune_stages.sdk import Context, Seal, publish_directory, read_seal, verify_seal
from finetune_stages.sdk.workspace import Readers

from .progress import ProgressCounter


def verified_entry(context: Context, entry: Path, readers: Readers | None = None) -> Seal | None:
    """Return the seal of an entry whose every byte was read again, by ``readers`` too; ``None`` if there is none, or a damaged one."""
    stated = read_seal(entry)
    if stated is None:
        return None
    total = sum(file.size for file in stated.files.values())
    return verify_seal(entry, advance=ProgressCounter(context, "checking the cache's entry", total, high=0), readers=readers)


def store_entry(source: Path, entry: Path) -> None:
    """Move a sealed directory of ours into the cache.

    Where another program was faster its entry stays: somebody may be reading it. A damaged entry is replaced.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(entry)  # fails on a directory that is not empty, atomically
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if verify_seal(entry) is None:
            publish_directory(source, entry)
        else:
            shutil.rmtree(source)
