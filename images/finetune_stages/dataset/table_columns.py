"""Columns of Parquet and Arrow files: which of them the ``datasets`` library reads."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .arrow_rows import READ_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa


def readable_columns(path: Path, kind: str, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return options for the builder of the library, and warnings about columns that are left out.

    The types that the library noted in the file are not used if this version of it does not know one of them.

    Raises:
        StageError: ``DatasetUnreadable``: two columns have one name, or a column that a format reads has a type that is not read.
    """
    import pyarrow as pa
    from datasets import Features

    schema = _schema(path, kind)
    twice = next((column for column in schema.names if schema.names.count(column) > 1), None)
    if twice is not None:
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: has two columns {twice!r}; rename one of them.")
    with suppress(Exception):  # whatever the library raises for its own metadata and for types that it does not know
        Features.from_arrow_schema(schema)
        return {}, ()
    features, others = dict[str, Any](), dict[str, str]()
    for field in schema:
        try:
            features |= Features.from_arrow_schema(pa.schema([field]))
        except ValueError:
            others[field.name] = str(field.type).replace(f" ('{field.name}')", "")
    needed = next((column for column in others if column in READ_COLUMNS or kind == "Arrow" or not features), None)
    if needed is not None:
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: column {needed} has type {others[needed]}, which this release does not read; write it as text, or remove it.",
        )
    shown = ", ".join(f"{column} ({type_name})" for column, type_name in others.items())
    notes = (f"this release does not read the type of column {shown}; omitted.",) if others else ()
    columns = {"columns": list(features)} if others else {}
    return {"features": Features(features), **columns}, notes


def _schema(path: Path, kind: str) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet

    if kind == "Parquet":
        return pyarrow.parquet.read_schema(path)
    with pa.OSFile(str(path)) as source:
        try:
            return pa.ipc.open_stream(source).schema
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_file(source).schema
