"""The text of the columns of a row, so that columns that are not converted are published as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

_DECODER = json.JSONDecoder()
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
        return _object(values, pairs, escaped=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair: the check of the rows reports it
        return _object(values, pairs, escaped=True).encode()


def _object(values: dict[str, Any], pairs: Iterable[tuple[str, str]], escaped: bool) -> str:
    members = [(column, json.dumps(value, ensure_ascii=escaped)) for column, value in values.items()]
    return "{" + ", ".join(f"{json.dumps(column, ensure_ascii=escaped)}: {value}" for column, value in (*members, *pairs)) + "}"


def _after(text: str, position: int) -> int:
    """Return the position after white space and a separator."""
    found = _BETWEEN.match(text, position)
    return found.end() if found else position
