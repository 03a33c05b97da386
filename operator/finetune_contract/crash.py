"""The message of a crash: the exception, its text, and the file and line where it was raised.

A stage program writes it, and the control plane compares two of them: the same exception at the same place is the same crash,
whatever numbers and addresses its text holds.
"""

from __future__ import annotations

import re

_FORM = re.compile(r"(?P<exception>\w+): .* \(at (?P<place>[^()\s]+:[0-9]+)\)\Z", re.DOTALL)


def crash_message(exception: str, text: str, place: str | None) -> str:
    """Return ``IndexError: list index out of range (at finetune_stages/dataset/chat.py:42)``; without a place, the rest of it."""
    return f"{exception}: {text} (at {place})" if place else f"{exception}: {text}"


def crash_location(message: str) -> str | None:
    """Return ``IndexError at finetune_stages/dataset/chat.py:42`` for such a message, ``None`` for any other text."""
    found = _FORM.match(message)
    return f"{found['exception']} at {found['place']}" if found else None
