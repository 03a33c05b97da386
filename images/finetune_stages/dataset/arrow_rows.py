"""Conversion to JSON Lines of Arrow tables, into which the ``datasets`` library reads Parquet and other formats."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import LEARNED_COLUMNS
from finetune_stages.sources.row_index import written_index

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 1000
_NO_TEXT = "has bytes in messages or tools that are not UTF-8 text"


def without_media(dataset: Dataset, name: str) -> tuple[Dataset, tuple[str, ...]]:
    """Return ``dataset`` without columns of images, audio and other media, and a warning if there are any.

    Raises:
        StageError: ``DatasetUnreadable``: the messages have media.
    """
    media = {column: kind for column, feature in dataset.features.items() if (kind := _medium(feature))}
    for column in LEARNED_COLUMNS:
        if column in media:
            raise StageError(
                reasons.DATASET_UNREADABLE,
                f"{name}: column {column} has {media[column]} values, and this release trains on text only; use a text dataset.",
            )
    if not media:
        return dataset, ()
    shown = ", ".join(f"{column} ({kind})" for column, kind in media.items())
    return dataset.remove_columns(list(media)), (f"this release trains on text only; omitted: column {shown}.",)


def write_arrow_rows(dataset: Dataset, numbers: Sequence[int], target: Path, advance: Callable[[int], object]) -> JsonLines:
    """Write the selected rows, one JSON object per line.

    A struct has every key in every row: null keys are omitted, because Arrow represents absent keys as null. Nulls in JSON columns
    and in lists are kept. Bytes are written as UTF-8 text, or as base64 in columns that are not learned.
    """
    features = dict(dataset.features)
    if len(numbers) != len(dataset) or not isinstance(numbers, range):
        dataset = dataset.select(numbers)
    rows = np.asarray(numbers, dtype=np.int64) + 1
    starts, faults = array("q", [0]), dict[int, str]()
    with target.open("wb", buffering=1 << 20) as stream:
        for batch in dataset.iter(_BATCH):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                row = present(dict(zip(columns, values, strict=True)), features)
                if not all(_is_text(row.get(column)) for column in LEARNED_COLUMNS):
                    faults[int(rows[len(starts) - 1])] = _NO_TEXT
                starts.append(starts[-1] + stream.write(_json(row)) + stream.write(b"\n"))
            advance(len(next(iter(batch.values()), ())))
    return JsonLines(target, written_index(rows, np.zeros_like(rows), starts), faults)


def present(value: Any, feature: Any) -> Any:
    """Return ``value`` without null keys of structs, at every depth. ``feature`` is its type in the ``datasets`` library."""
    if type(feature).__name__ == "Json":
        return value
    if isinstance(value, dict):
        keys = feature if isinstance(feature, dict) else {}
        plain = {key: present(item, keys.get(key)) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item is not None}
    if isinstance(value, list):
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return [present(item, inner) for item in value]
    return value


def _medium(feature: Any) -> str | None:
    """Return the type of the media in a column, which libraries decode to objects; ``None`` if it has none."""
    if isinstance(feature, dict):
        return next(filter(None, map(_medium, feature.values())), None)
    if isinstance(feature, list):
        return _medium(feature[0]) if feature else None
    if hasattr(feature, "decode_example") and type(feature).__name__ != "Json":
        return type(feature).__name__
    inner = getattr(feature, "feature", None)
    return _medium(inner) if inner is not None else None


def _is_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_text, value.values()))
    if isinstance(value, list):
        return all(map(_is_text, value))
    return not isinstance(value, bytes) or _text(value) is not None


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _json(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError:  # half a surrogate pair: the check of the rows reports it
        return json.dumps(row, default=_plain).encode()


def _plain(value: Any) -> Any:
    """JSON for what JSON has no type for: bytes as text, times as ISO 8601."""
    if isinstance(value, bytes):
        text = _text(value)
        return base64.b64encode(value).decode() if text is None else text
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
