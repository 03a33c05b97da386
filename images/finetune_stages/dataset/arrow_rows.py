"""Conversion to JSON Lines of Arrow tables, into which the ``datasets`` library reads Parquet and other formats."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_contract import reasons
from finetune_contract.row_formats import RowFields
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import LEARNED_COLUMNS
from finetune_stages.sources.row_index import written_index

from .formats.recognition import CONVERSATIONS

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 1000
_READ = (*LEARNED_COLUMNS, *dict.fromkeys((*CONVERSATIONS, *(field.name for field in fields(RowFields)))))
"""Columns that a format reads by default. Bytes in them that are not text make a row bad; other columns are left out."""


def text_columns(dataset: Dataset, name: str) -> tuple[Dataset, tuple[str, ...]]:
    """Return ``dataset`` without columns of media, and of bytes that are not text, and warnings if there are any.

    Raises:
        StageError: ``DatasetUnreadable``: the messages have media, or no column has text.
    """
    media = {column: kind for column, feature in dataset.features.items() if (kind := _medium(feature))}
    for column in LEARNED_COLUMNS:
        if column in media:
            raise StageError(
                reasons.DATASET_UNREADABLE,
                f"{name}: column {column} has {media[column]} values, and this release trains on text only; use a text dataset.",
            )
    notes = []
    if media:
        shown = ", ".join(f"{column} ({kind})" for column, kind in media.items())
        notes.append(f"this release trains on text only; omitted: column {shown}.")
    opaque = [
        column for column in dataset.column_names if column not in (*media, *_READ) and not _is_utf8(dataset.data.column(column))
    ]
    if opaque and len(media) + len(opaque) == len(dataset.column_names):
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: column {', '.join(opaque)} has bytes that are not UTF-8 text; write the text as strings.",
        )
    if opaque:
        notes.append(f"column {', '.join(opaque)} has bytes that are not UTF-8 text; omitted.")
    return dataset.remove_columns([*media, *opaque]), tuple(notes)


def _is_utf8(values: Any) -> bool:
    """Return whether all bytes in an Arrow array are UTF-8, at any depth."""
    import pyarrow as pa
    import pyarrow.compute

    kinds, kind = pa.types, values.type
    if kinds.is_struct(kind):
        return all(map(_is_utf8, values.flatten()))
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _is_utf8(pa.compute.list_flatten(values))
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        try:
            values.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            return False
    return True


def write_arrow_rows(dataset: Dataset, numbers: Sequence[int], target: Path, advance: Callable[[int], object]) -> JsonLines:
    """Write the selected rows, one JSON object per line.

    A struct has every key in every row: null keys are omitted, because Arrow represents absent keys as null. Nulls in JSON columns
    and in lists are kept. Bytes are written as UTF-8 text; a row with other bytes has a fault.
    """
    features = dict(dataset.features)
    checked = [column for column in _READ if column in features]
    if len(numbers) != len(dataset) or not isinstance(numbers, range):
        dataset = dataset.select(numbers)
    rows = np.asarray(numbers, dtype=np.int64) + 1
    starts, faults = array("q", [0]), dict[int, str]()
    with target.open("wb", buffering=1 << 20) as stream:
        for batch in dataset.iter(_BATCH):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                row = present(dict(zip(columns, values, strict=True)), features)
                opaque = next((column for column in checked if not _is_text(row.get(column))), None)
                if opaque is not None:
                    faults[int(rows[len(starts) - 1])] = f"has bytes in column {opaque} that are not UTF-8 text"
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
    try:
        if isinstance(value, bytes):
            value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError:  # half a surrogate pair: the check of the rows reports it
        return json.dumps(row, default=_plain).encode()


def _plain(value: Any) -> Any:
    """JSON for what JSON has no type for: bytes as text, times as ISO 8601."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")  # bytes that are not text are a fault of the row, which is not published
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
