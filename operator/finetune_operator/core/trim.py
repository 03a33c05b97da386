"""Limit of 64 KiB for the whole object: which parts of status are dropped first."""

from __future__ import annotations

import json
from typing import Any

from .paths import Json, lookup

OBJECT_SIZE_LIMIT = 64 * 1024
"""Bytes of the whole object as JSON."""
METADATA_ROOM = 4 * 1024
"""Bytes that are reserved for labels, annotations and managed fields."""


def trim(status: Json, spec_bytes: int) -> Json:
    """Return a status that fits beside ``spec``: first the sample of rows is dropped, then the loss curve thinned, then others."""
    room = OBJECT_SIZE_LIMIT - METADATA_ROOM - spec_bytes
    for shorten in (_whole, _sample, _history, _log_tail, _scores, _messages):
        status = shorten(status)
        if size_of(status) <= room:
            return status
    return status


def size_of(value: Any) -> int:
    """Return the bytes of a document as compact JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _whole(status: Json) -> Json:
    return status


def _sample(status: Json) -> Json:
    return {key: value for key, value in status.items() if key != "sample"}


def _history(status: Json) -> Json:
    history = status.get("history") or []
    return {**status, "history": history[::4]} if history else status


def _log_tail(status: Json) -> Json:
    failure = status.get("failure")
    return {**status, "failure": {key: value for key, value in failure.items() if key != "logTail"}} if failure else status


def _scores(status: Json) -> Json:
    """Drop scores, but not those of the gate."""
    metrics = status.get("metrics") or {}
    wanted = {entry["metric"] for entry in lookup(status, "resolved.spec.gate.requirements") or ()}
    few = {
        group: dict(sorted(scores.items(), key=lambda item: (item[0].removesuffix("_stderr") not in wanted, item[0]))[:64])
        for group, scores in metrics.items()
    }
    return {**status, "metrics": few} if metrics else status


def _messages(status: Json) -> Json:
    short = [{key: value for key, value in stage.items() if key != "message"} for stage in status.get("stages") or ()]
    return {**status, "stages": short} if short else status
