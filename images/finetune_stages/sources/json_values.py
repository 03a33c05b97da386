"""JSON values as messages name them."""

from __future__ import annotations

import json
from typing import Any

_KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_LENGTH = 40


def kind(value: Any) -> str:
    """Return the type of a JSON value: "a list", "null"."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """Return a JSON value as text of at most 40 characters."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."


def listed(names: list[str], most: int) -> str:
    """Return the first names of a list, of at most 40 characters each, in one line."""
    plain = [(name if name.isprintable() else ascii(name))[:_LENGTH] for name in names[:most]]
    return ", ".join(plain) + (", ..." if len(names) > most else "")
