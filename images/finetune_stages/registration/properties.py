"""Custom properties of Model Registry: typed values by name.

The dashboard shows text and numbers and hides truth values, and takes a text without content for a label: so truth values are
written as text, and empty texts not at all. The API's integers have at most nine digits; longer ones are written as floating-point
numbers as long as those are exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from finetune_contract.documents import Scalar

from .record import GATE, LABEL, Record

Properties = dict[str, dict[str, Any]]
"""As the API has them: ``{"epochs": {"metadataType": "MetadataIntValue", "int_value": "2"}}``."""

OURS = f"{LABEL}/properties"
"""Property with the names of all that we wrote: an update leaves what people added."""
EXPERIMENT = f"{LABEL}/experiment"

_LARGEST_INT = 10**9 - 1
_LARGEST_EXACT = 2**53


def of_record(record: Record) -> Properties:
    """Return what a version of Model Registry has no field for."""
    metrics = record.metrics
    values: dict[str, Scalar] = {
        **{key if key not in metrics else f"parameter.{key}": value for key, value in record.parameters.items()},
        **metrics,
        **record.lineage,
        **record.identity,
        EXPERIMENT: record.experiment,
    }
    if record.gate:
        values[GATE] = record.gate
    values = {key: value for key, value in values.items() if value != ""}
    values[OURS] = json.dumps(sorted(values), separators=(",", ":"))
    return {key: typed(value) for key, value in values.items()}


def typed(value: Scalar) -> dict[str, Any]:
    """One value, with its type."""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int) and abs(value) <= _LARGEST_INT:
        return {"metadataType": "MetadataIntValue", "int_value": str(value)}
    elif isinstance(value, (int, float)) and math.isfinite(value) and (isinstance(value, float) or abs(value) <= _LARGEST_EXACT):
        return {"metadataType": "MetadataDoubleValue", "double_value": float(value)}
    return {"metadataType": "MetadataStringValue", "string_value": str(value)}


def texts(properties: Mapping[str, Mapping[str, Any]] | None) -> dict[str, str]:
    """Return the text among properties."""
    return {key: str(value["string_value"]) for key, value in (properties or {}).items() if "string_value" in value}


def replaced(existing: Properties | None, new: Properties) -> Properties:
    """Return ``existing`` with ``new`` in place of what we wrote earlier: the registry takes the whole map or none."""
    kept = existing or {}
    try:
        earlier = set(json.loads(texts(kept).get(OURS, "[]")))
    except (ValueError, TypeError):  # somebody edited it: then nothing of it is known to be ours
        earlier = set()
    return {**{key: value for key, value in kept.items() if key not in earlier and not key.startswith(f"{LABEL}/")}, **new}


def includes(existing: Properties | None, wanted: Properties) -> bool:
    """Return whether every wanted property is there with that value."""
    return all(_value((existing or {}).get(key)) == _value(value) for key, value in wanted.items())


def _value(value: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: entry for key, entry in (value or {}).items() if key != "metadataType"}
