"""JSON from programs and objects that others write: bounded, and only values that every JSON parser reads alike.

:mod:`json` accepts ``NaN``, numbers that no double holds, halves of characters and the same key twice. Such values cannot be written into
an object of Kubernetes, or mean something else there. It also accepts a nesting that later code cannot walk.
"""

from __future__ import annotations

import json
import math
from typing import Any

DEPTH_LIMIT = 32
"""Levels of objects and lists, the outermost included."""
_INT64 = range(-(2**63), 2**63)
_DIGITS = 20
"""Characters of the longest 64-bit number."""


class JsonError(ValueError):
    """A text is not JSON, or is beyond a limit. The message does not quote the text."""


def loads(text: str | bytes, limit: int, depth: int = DEPTH_LIMIT) -> Any:
    """Return the value of a JSON text of at most ``limit`` characters and ``depth`` levels, in time linear in its length.

    Bytes are UTF-8, and ``limit`` counts them.

    Raises:
        JsonError: the text is not UTF-8 or not JSON or is beyond a limit, a number is not finite or is a whole number of more than 64 bits, a key
            occurs twice in an object, or a string has half of a surrogate pair.
    """
    if len(text) > limit:
        raise JsonError(f"has more than {limit} {'bytes' if isinstance(text, bytes) else 'characters'}")
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            text, parse_constant=_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_without_repeats
        )
    except RecursionError:
        raise JsonError(f"has more than {depth} levels") from None
    except JsonError:
        raise
    except ValueError:
        raise JsonError("is not JSON") from None
    _check(value, depth)
    return value


def _constant(name: str) -> float:
    raise JsonError(f"contains {name}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError("contains a number that is not finite")
    return number


def _whole(text: str) -> int:
    if len(text) > _DIGITS or int(text) not in _INT64:
        raise JsonError("contains a whole number of more than 64 bits")
    return int(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise JsonError("contains a key twice in one object")
    return found


def _check(value: Any, depth: int) -> None:
    """Raise an error for a value that is nested too deeply, or that UTF-8 cannot encode. The walk is not recursive."""
    level = [value]
    for left in range(depth, -1, -1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one)
            elif isinstance(one, (dict, list)):
                if not left:
                    raise JsonError(f"has more than {depth} levels")
                inner += one
                inner += one.values() if isinstance(one, dict) else ()
        level = inner


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JsonError("contains half of a surrogate pair") from None
