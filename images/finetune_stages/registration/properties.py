"""Custom properties of Model Registry: typed values by name.

The dashboard shows text and numbers but hides booleans, and treats an empty text as a label. Therefore booleans are written as text, and
empty texts are omitted. The API's integers have at most nine digits; longer ones are written as floating-point numbers if those are
exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from finetune_contract import strict_json
from finetune_contract.documents import Scalar

from .record import GATE, LABEL, Record

Properties = dict[str, dict[str, Any]]
"""Properties in the API's form: ``{"epochs": {"metadataType": "MetadataIntValue", "int_value": "2"}}``."""

OURS = f"{LABEL}/properties"
"""Property with the names of our properties: an update keeps those that users added."""
_OURS_LIMIT = 1 << 20
"""Characters of its value, which the registry sends."""
EXPERIMENT = f"{LABEL}/experiment"

_LARGEST_INT = 10**9 - 1
_LARGEST_EXACT = 2**53


def of_record(record: Record) -> Properties:
    """Return the values of a record without a field in Model Registry."""
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
    """Return a value with its type."""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int) and abs(value) <= _LARGEST_INT:
        return {"metadataType": "MetadataIntValue", "int_value": str(value)}
    elif isinstance(value, (int, float)) and math.isfinite(value) and (isinstance(value, float) or abs(value) <= _LARGEST_EXACT):
        return {"metadataType": "MetadataDoubleValue", "double_value": float(value)}
    return {"metadataType": "MetadataStringValue", "string_value": str(value)}


def texts(properties: Mapping[str, Mapping[str, Any]] | None) -> dict[str, str]:
    """Return the text properties."""
    return {key: str(value["string_value"]) for key, value in (properties or {}).items() if "string_value" in value}


def replaced(existing: Properties | None, new: Properties) -> Properties:
    """Return ``existing`` with our properties replaced by ``new``: the registry replaces the whole map."""
    kept = existing or {}
    try:
        earlier = set(strict_json.loads(texts(kept).get(OURS, "[]"), _OURS_LIMIT))
    except (ValueError, TypeError):  # it was edited, so our properties are unknown
        earlier = set()
    return {**{key: value for key, value in kept.items() if key not in earlier and not key.startswith(f"{LABEL}/")}, **new}


def includes(existing: Properties | None, expected: Properties) -> bool:
    """Return whether all ``expected`` properties exist with equal values."""
    return all(_value((existing or {}).get(key)) == _value(value) for key, value in expected.items())


def _value(value: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: entry for key, entry in (value or {}).items() if key != "metadataType"}
