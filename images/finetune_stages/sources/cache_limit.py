"""Limit of the caches of data and base models: entries that were unused for the longest time are removed."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_contract.documents import CACHE_LIMIT_VARIABLE
from finetune_contract.workspace import CACHE_DATASETS, CACHE_MODELS, SENTINEL
from finetune_stages.sdk import Context, read_seal

from .progress import MEGABYTE

KEPT_SECONDS = 3600
"""Time after its last use in which an entry is kept, because a stage may have verified it and not linked it yet."""
_KINDS = {CACHE_DATASETS: "data", CACHE_MODELS: "model"}
_REMOVED = ".removed-"
_NAMED = 3


@dataclass(frozen=True)
class _Entry:
    """An entry of a cache.

    Attributes:
        used: time of the last use.
        size: bytes that its removal frees: files that a run's folder shares as hard links are not counted.
    """

    path: Path
    name: str
    used: float
    size: int


def mark_used(entry: Path) -> None:
    """Record that an entry is used now."""
    with suppress(OSError):  # a read-only volume
        os.utime(entry / SENTINEL)


def limit_caches(context: Context) -> tuple[str, ...]:
    """Remove entries until the caches have at most the bytes of ``FINETUNE_CACHE_LIMIT``; return sentences about that for the user.

    Entries that a run's folder links, or that were used in the last hour, are kept.
    """
    limit = os.environ.get(CACHE_LIMIT_VARIABLE)
    if not limit:
        return ()
    most, now, linked = int(limit), time.time(), _linked(context)
    entries = sorted(_entries(context), key=lambda entry: (entry.used, entry.path))
    total, removed = sum(entry.size for entry in entries), list[_Entry]()
    for entry in entries:
        if total <= most:
            break
        if entry.size and entry.path not in linked and now - entry.used >= KEPT_SECONDS:
            outcome = _remove(entry.path)
            removed += [entry] * (outcome == "removed")
            total -= entry.size * (outcome != "kept")
    return tuple(_sentences(removed, total, most))


def _sentences(removed: list[_Entry], total: int, most: int) -> Iterator[str]:
    if removed:
        names = ", ".join(entry.name for entry in removed[:_NAMED]) + (", ..." if len(removed) > _NAMED else "")
        noun, verb = ("entry", "was") if len(removed) == 1 else ("entries", "were")
        yield (
            f"cleanup.cacheSize: {len(removed):,} unused {noun} of the caches with {_megabytes(sum(entry.size for entry in removed))} {verb}"
            f" removed ({names})."
        )
    if total > most:
        yield (
            f"cleanup.cacheSize: the caches have {_megabytes(total)}, more than {_megabytes(most)}, because runs use them; raise it, or delete"
            " the directories of runs that are no longer needed."
        )


def _entries(context: Context) -> Iterator[_Entry]:
    for cache, kind in _KINDS.items():
        folder = context.path(cache)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(_REMOVED):  # an attempt was killed while it removed the entry
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                with suppress(FileNotFoundError):  # another stage removes it
                    yield _entry(path, kind)


def _entry(path: Path, kind: str) -> _Entry:
    seal = read_seal(path)
    source = str(seal.note.get("source", path.name[:12])) if seal else path.name[:12]
    files = [each.lstat() for each in path.rglob("*") if each.is_file() and each.name != SENTINEL]
    size = sum(each.st_size for each in files if each.st_nlink == 1)
    return _Entry(path, f"{kind} {source}", _last_use(path), size)


def _linked(context: Context) -> set[Path]:
    """Return the entries that folders of runs link."""
    return {link.resolve() for link in context.workspace.glob("runs/*/*") if link.is_symlink()}


def _last_use(entry: Path) -> float:
    marker = entry / SENTINEL
    return (marker if marker.exists() else entry).stat().st_mtime


def _remove(path: Path) -> Literal["removed", "gone", "kept"]:
    """Remove an entry as a whole: no process sees a part of it. ``gone``: another process has removed it.

    An entry that another process has begun to use since the entries were listed is put back.
    """
    aside = path.with_name(
        f"{_REMOVED}{uuid.uuid4().hex[:8]}-{path.name}"
    )  # what cannot be deleted is not in the way of later removals
    try:
        path.rename(aside)
        if time.time() - _last_use(aside) < KEPT_SECONDS:
            aside.rename(path)
            return "kept"
    except FileNotFoundError:
        return "gone"
    except OSError:  # of another owner, or replaced in the meantime
        pass
    shutil.rmtree(aside, ignore_errors=True)
    return "kept" if path.exists() else "removed"


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.0f} MB"
