"""Times as Kubernetes writes them (RFC 3339, UTC, whole seconds) and Go durations."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_UNIT = re.compile(r"([a-z]+)")
LONGEST = timedelta(days=400_000)
"""Upper limit of durations, more than a thousand years: a date that far away can still be computed."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def stamp(time: datetime) -> str:
    """Return a time as ``2026-11-21T10:20:30Z``."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """Return the time of a stamp. Fractions of seconds and offsets are accepted."""
    return datetime.fromisoformat(text)


def duration(text: str) -> timedelta:
    """Return a Go duration (``1h30m``, ``90s``, ``250ms``), at most :data:`LONGEST`.

    Raises:
        ValueError: the text is not a duration.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; use a value such as 90s, 15m or 2h30m")
    parts = _UNIT.split(text)  # number, unit, number, unit ..., and an empty text
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in zip(parts[:-1:2], parts[1::2], strict=True))
    return timedelta(seconds=min(seconds, LONGEST.total_seconds()))


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return the seconds from one stamp to another, ``None`` where one is missing."""
    return (moment(end) - moment(start)).total_seconds() if start and end else None


def short_duration(seconds: float) -> str:
    """Return a duration with at most two units: ``95`` -> ``1m35s``."""
    whole = int(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size}{unit}{rest}{smaller}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"
