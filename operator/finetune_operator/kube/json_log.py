"""Log records as JSON lines. A record that cannot be serialized loses details, but is always written."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pythonjsonlogger.json import JsonFormatter

_LONGEST = 1000
"""Maximum length of the text of an object that is not a JSON value."""


class TotalJsonFormatter(JsonFormatter):
    """A JSON formatter that never raises.

    Libraries attach arbitrary objects to records. An object that is not a JSON value is written as text: the conversion of
    python-json-logger copies data classes, and fails if they contain a lock or a task.
    """

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{message}", style="{", timestamp="time", rename_fields={"levelname": "level", "name": "logger"},
            json_default=_as_text, json_serializer=partial(json.dumps, allow_nan=False),
        )  # fmt: skip

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON line."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - a line without details is better than none
            return _essentials(record, error)


def _as_text(value: Any) -> str:
    try:
        return value.isoformat() if isinstance(value, datetime) else repr(value)[:_LONGEST]
    except Exception:  # noqa: BLE001 - the object may raise anything
        return f"<{type(value).__name__}>"


def _essentials(record: logging.LogRecord, error: Exception) -> str:
    """Return level, logger, message and exception of a record that cannot be formatted, and the type of the error."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - the arguments do not fit the message, or raise an exception
        message = _as_text(record.msg)
    time = datetime.fromtimestamp(record.created, UTC).isoformat()
    fields = {
        "level": record.levelname,
        "logger": record.name,
        "message": message,
        "time": time,
        "unformatted": type(error).__name__,
    }
    if record.exc_info and record.exc_info[0] is not None:
        fields["exc_info"] = f"{record.exc_info[0].__name__}\n{''.join(traceback.format_tb(record.exc_info[2]))}"
    return json.dumps(fields)
