"""Conversion to JSON Lines of Arrow tables, into which the ``datasets`` library reads Parquet and other formats."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
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
READ_COLUMNS = (*LEARNED_COLUMNS, *dict.fromkeys((*CONVERSATIONS, *(field.name for field in fields(RowFields)))))
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
        column
        for column in dataset.column_names
        if column not in (*media, *READ_COLUMNS) and not _is_utf8(dataset.data.column(column))
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
    if _has_bytes(kind):
        try:
            values.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:
            return False
    return True


def _has_bytes(kind: Any) -> bool:
    """Return whether an Arrow type is binary or string. Writers exist that do not check that strings are UTF-8."""
    import pyarrow as pa

    kinds = pa.types
    return any(
        is_one(kind)
        for is_one in (kinds.is_binary, kinds.is_large_binary, kinds.is_fixed_size_binary, kinds.is_string, kinds.is_large_string)
    )


def _without_strings(kind: Any) -> Any:
    """Return an Arrow type with binary instead of string, at any depth of structs and lists."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return pa.large_binary()
    if kinds.is_struct(kind):
        return pa.struct([field.with_type(_without_strings(field.type)) for field in kind])
    if kinds.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_strings(kind.value_type)))
    if kinds.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_strings(kind.value_type)))
    return kind


def _batches(dataset: Dataset) -> Iterator[dict[str, list[Any]]]:
    """Yield the values of the columns of some rows. In a batch with a string that is not UTF-8, such a string is bytes."""
    import pyarrow as pa

    for begin in range(0, len(dataset), _BATCH):
        numbers = slice(begin, begin + _BATCH)
        try:
            yield dataset[numbers]
        except UnicodeDecodeError:
            table = dataset.with_format("arrow")[numbers]
            kinds = [field.with_type(_without_strings(field.type)) for field in table.schema]
            columns = table.cast(pa.schema(kinds)).to_pydict()
            yield {name: [_text(value, dataset.features[name]) for value in values] for name, values in columns.items()}


def _text(value: Any, feature: Any) -> Any:
    """Return a value with bytes that are UTF-8 as text, and JSON columns of the ``datasets`` library decoded."""
    if isinstance(value, dict):
        return {key: _text(item, feature.get(key) if isinstance(feature, dict) else None) for key, item in value.items()}
    if isinstance(value, list):
        return [_text(item, getattr(feature, "feature", None)) for item in value]
    if not isinstance(value, bytes) or not _is_text(value):
        return value
    text = value.decode()
    return json.loads(text) if type(feature).__name__ == "Json" else text


def write_arrow_rows(dataset: Dataset, numbers: Sequence[int], target: Path, advance: Callable[[int], object]) -> JsonLines:
    """Write the selected rows, one JSON object per line.

    A struct has every key in every row: null keys are omitted, because Arrow represents absent keys as null. Nulls in JSON columns
    and in lists are kept. Bytes are written as UTF-8 text; a row with other bytes has a fault.
    """
    features = dict(dataset.features)
    checked = [column for column in READ_COLUMNS if column in features]
    if len(numbers) != len(dataset) or not isinstance(numbers, range):
        dataset = dataset.select(numbers)
    rows = np.asarray(numbers, dtype=np.int64) + 1
    starts, faults = array("q", [0]), dict[int, str]()
    with target.open("wb", buffering=1 << 20) as stream:
        for batch in _batches(dataset):
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
