"""Locations with several files: directories, prefixes and globs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.file_names import choose_data, listed, splits_of
from finetune_stages.sources.origin import DATASET, Origin

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
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{origin.field}: {location} has files of several splits ({', '.join(splits.values())}); {_one_split(splits, location, origin)}.",
        )
    warnings = (f"files that are not named like data are left out: {listed(chosen.others)}.",) if chosen.others else ()
    return list(chosen.data), warnings


def _one_split(splits: Mapping[str, str], location: str, origin: Origin) -> str:
    """Return the fields to set, with a glob for a directory. Test rows are never proposed for training."""
    globs = {
        split: f"{location}{name.rpartition('/')[0]}/**" if "/" in name else location + name for split, name in splits.items()
    }
    train, others = globs.get("train"), [glob for split, glob in globs.items() if split != "train"]
    if origin is not DATASET:
        return f"set the files of one split, such as {others[0]}"
    if train is None:
        return "set dataset.uri to the files to train on, and dataset.evalUri to those to hold out"
    return f"set dataset.uri to {train} and dataset.evalUri to {others[0]}"


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
