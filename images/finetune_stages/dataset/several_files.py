"""Locations with several files: directories, prefixes and globs."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.file_names import choose_data, listed, splits_of
from finetune_stages.sources.origin import Origin

MOST_FILES = 10_000
"""Largest number of files of one location."""


def data_below(names: Sequence[str], location: str, origin: Origin) -> tuple[list[str], tuple[str, ...]]:
    """Return the data files of a directory or prefix in order, and warnings about the files that are left out.

    Args:
        names: the files below the location, relative to it.
        location: the directory or prefix in messages; it ends with ``/``.
        origin: field and reasons for failures.

    Raises:
        StageError: ``origin.not_found``: there are no data files, or too many. ``DatasetUnreadable``: they belong to several splits.
    """
    chosen = choose_data(names)
    if not chosen.data:
        there = f"only {listed(chosen.others)}" if chosen.others else "nothing"
        raise StageError(
            origin.not_found,
            f"{origin.field}: {location} has no data files ({there}); files are named .jsonl, .json, .csv, .tsv, .parquet or .arrow.",
        )
    require_few(len(chosen.data), location, origin)
    splits = splits_of(chosen.data)
    if len(splits) > 1:
        names_of_splits = list(splits.values())
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{origin.field}: {location} has files of several splits ({', '.join(names_of_splits)}); set the files of one split, such as"
            f" {location}{names_of_splits[0]}, or {location}** for all files.",
        )
    warnings = (f"files that are not named like data are left out: {listed(chosen.others)}.",) if chosen.others else ()
    return list(chosen.data), warnings


def require_few(count: int, location: str, origin: Origin) -> None:
    """Check that a location has at most :data:`MOST_FILES` files.

    Raises:
        StageError: ``origin.not_found``.
    """
    if count > MOST_FILES:
        raise StageError(
            origin.not_found,
            f"{origin.field}: {location} has {count:,} files, and at most {MOST_FILES:,} are read; write larger files, or set a smaller"
            " location.",
        )
