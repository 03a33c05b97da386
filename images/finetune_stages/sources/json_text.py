"""The JSON text of a row: parsing, publishing, and numbers that JSON does not have."""

from __future__ import annotations

import json
import math
import re
from typing import Any

LEARNED_COLUMNS = ("messages", "tools")
"""Columns of a chat row that later stages read."""
SECOND_VALUE = "has a second JSON value"
"""Beginning of the fault of a line with two values."""
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?Infinity|NaN|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?', re.DOTALL)
"""Strings and numbers. All digits belong to one match, so that the search takes linear time."""
_BIG_NUMBER = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{200}")
"""A part of each number beyond the largest float, 1.8e308."""


def parse(text: bytes) -> Any:
    """Return the JSON value of a row. NaN and Infinity, which are not JSON but are written by Python and Arrow, are read as numbers.

    Raises:
        ValueError: The text is not JSON, not UTF-8, nested too deeply, or has a number with too many digits.
    """
    try:
        return json.loads(text.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def plain(text: bytes) -> bytes:
    """Return the text of a valid row in a form that every reader of JSON Lines accepts: on one line, with null for NaN and infinite numbers.

    A number beyond the largest float, such as 1e999, is infinite when it is read.

    Line breaks and carriage returns in JSON are white space between tokens: inside a string they are escaped.
    """
    if b"\r" in text:
        text = text.replace(b"\r", b"\n")
    if b"\n" in text:
        text = b" ".join(filter(None, map(bytes.strip, text.split(b"\n"))))
    if may_have_non_finite(text):
        text = _TOKEN.sub(_finite, text)
    return text


def _finite(token: re.Match[bytes]) -> bytes:
    """Return a string or a number as it is, and ``null`` for a number that is not finite."""
    found = token[0]
    is_exact = found.startswith(b'"') or found.lstrip(b"-").isdigit()  # an integer is read exactly
    return found if is_exact or math.isfinite(float(found)) else b"null"


def non_finite_fault(row: Any, text: bytes) -> str | None:
    """Return the fault of a chat row with a non-finite number in a learned column. JSON readers treat NaN differently."""
    if not isinstance(row, dict) or not may_have_non_finite(text):
        return None
    column = next((column for column in LEARNED_COLUMNS if has_non_finite(row.get(column))), None)
    return f"has NaN or an infinite number in {column}, which JSON does not have" if column else None


def may_have_non_finite(text: bytes) -> bool:
    """Return whether the value of ``text`` can have a non-finite number. This is faster than :func:`has_non_finite`."""
    return b"NaN" in text or b"Infinity" in text or _BIG_NUMBER.search(text) is not None


def has_non_finite(value: Any) -> bool:
    """Return whether NaN or an infinite number is in ``value``, at any depth."""
    if isinstance(value, dict):
        return any(map(has_non_finite, value.values()))
    if isinstance(value, list):
        return any(map(has_non_finite, value))
    return isinstance(value, float) and not math.isfinite(value)


def json_fault(error: ValueError, text: bytes) -> str:
    """Return why a row is not JSON, as the end of a sentence that begins with "row 17 (line 18)"."""
    if isinstance(error, json.JSONDecodeError):
        if error.msg == "Extra data" and error.doc[error.pos :].strip() == ",":
            return "is not JSON (a comma follows the object)"
        if error.msg == "Extra data" and _is_value(error.doc[error.pos :]):
            return f"{SECOND_VALUE} at character {error.pos + 1}"
        place = f"character {error.colno} of its line {error.lineno}" if b"\n" in text.strip() else f"character {error.pos + 1}"
        return f"is not JSON ({error.msg.removesuffix(' at')} at {place})"
    if isinstance(error, UnicodeDecodeError):
        return f"is not JSON (not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start + 1})"
    if "int_max_str_digits" in str(error):
        return "is not JSON that can be read (an integer has more than 4,300 digits)"
    return f"is not JSON ({error})"


def _is_value(text: str) -> bool:
    """Return whether a text begins with a JSON object or array."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, (dict, list))
