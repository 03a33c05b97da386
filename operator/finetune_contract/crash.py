"""The message of a crash: the exception, its text, and the file and line where it was raised.

A stage program writes it, and the control plane compares two of them: the same exception at the same location is the same crash,
whatever numbers and addresses are in its text.
"""

from __future__ import annotations

import re

_FORM = re.compile(r"(?P<exception>\w+): .* \(at (?P<location>[^()\s]+:[0-9]+)\)\Z", re.DOTALL)


def crash_message(exception: str, text: str, location: str | None) -> str:
    """Return ``IndexError: list index out of range (at finetune_stages/dataset/chat.py:42)``; without a location, only exception and text."""
    return f"{exception}: {text} (at {location})" if location else f"{exception}: {text}"


def crash_location(message: str) -> str | None:
    """Return ``IndexError at finetune_stages/dataset/chat.py:42`` for such a message, ``None`` for any other text."""
    found = _FORM.match(message)
    return f"{found['exception']} at {found['location']}" if found else None
