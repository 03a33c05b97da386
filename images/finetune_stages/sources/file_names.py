"""Names of files in directories, prefixes and globs: which of them are data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_WILDCARDS = re.compile(r"[*?\[]")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_COMPRESSED = rf"({'|'.join(map(re.escape, COMPRESSIONS))})?"
_DATA = re.compile(rf".+\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather){_COMPRESSED}", re.IGNORECASE)
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""Files that the ``datasets`` library writes beside the data."""
_SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test", "holdout": "test", "heldout": "test",
    "valid": "validation", "validation": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
"""Words in the names of files that name a split, as the ``datasets`` library reads them, and two more."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""Words, also in camel case."""
_SHOWN = 3


@dataclass(frozen=True)
class Chosen:
    """The data files among the files of a location, in order, and those that are left out."""

    data: tuple[str, ...]
    others: tuple[str, ...]


def delimiter_of(name: str) -> str | None:
    """Return what separates the cells of a file, by its name; ``None`` if the file is neither CSV nor TSV."""
    path = PurePath(name)
    suffix = PurePath(path.stem).suffix if path.suffix.lower() in COMPRESSIONS else path.suffix
    return _DELIMITERS.get(suffix.lower())


def has_wildcards(text: str) -> bool:
    """Return whether a path or key is a glob."""
    return _WILDCARDS.search(text) is not None


def fixed_prefix(pattern: str) -> str:
    """Return the part of a glob before its first wildcard."""
    return _WILDCARDS.split(pattern, maxsplit=1)[0]


def choose_data(names: Iterable[str]) -> Chosen:
    """Return which of the files below a location are data, by their names relative to it.

    Hidden files (``.git``, ``_SUCCESS``) are neither data nor left out.
    """
    visible = sorted(name for name in names if not any(part.startswith((".", "_")) for part in name.split("/")))
    data = tuple(name for name in visible if _is_data(name))
    return Chosen(data, tuple(name for name in visible if not _is_data(name)))


def splits_of(names: Sequence[str]) -> dict[str, str]:
    """Return the splits that names of files contain, each with the first such name."""
    found: dict[str, str] = {}
    for name in names:
        for word in _WORDS.findall(name):
            if word.lower() in _SPLITS:
                found.setdefault(_SPLITS[word.lower()], name)
    return found


def listed(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Return the first names for messages."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _is_data(name: str) -> bool:
    last = name.rpartition("/")[2]
    return _DATA.fullmatch(last) is not None and last not in _METADATA
