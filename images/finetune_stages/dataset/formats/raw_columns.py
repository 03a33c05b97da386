"""The text of the columns of a row, so that columns that are not converted are published as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

_DECODER = json.JSONDecoder()
_ENCODE, _ENCODE_ESCAPED = json.JSONEncoder(ensure_ascii=False).encode, json.JSONEncoder().encode
_BETWEEN = re.compile(r"[ \t\r\n]*[,:{]?[ \t\r\n]*")


def raw_columns(text: str) -> dict[str, str]:
    """Return the JSON text of each column of a row, which is a valid JSON object."""
    found, position = {}, _after(text, 0)
    while text[position] == '"':
        column, position = scanstring(text, position + 1)
        start = _after(text, position)
        _, end = _DECODER.raw_decode(text, start)
        found[column] = text[start:end]
        position = _after(text, end)
    return found


def row_text(values: dict[str, Any], text: str, others: Iterable[str]) -> bytes:
    """Return the JSON text of a row with new columns, and with ``others`` as they are in ``text``."""
    kept = list(others)
    raw = raw_columns(text) if kept else {}
    pairs = [(column, raw[column]) for column in kept]
    try:
        return _object(values, pairs, _ENCODE).encode()
    except UnicodeEncodeError:  # half a surrogate pair: the check of the rows reports it
        return _object(values, pairs, _ENCODE_ESCAPED).encode()


def _object(values: dict[str, Any], pairs: Iterable[tuple[str, str]], encode: Callable[[Any], str]) -> str:
    members = [(column, encode(value)) for column, value in values.items()]
    return "{" + ", ".join(f"{encode(column)}: {value}" for column, value in (*members, *pairs)) + "}"


def _after(text: str, position: int) -> int:
    """Return the position after white space and a separator."""
    found = _BETWEEN.match(text, position)
    return found.end() if found else position
