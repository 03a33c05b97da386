"""The origin of a value, as a prefix in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .paths import leaves

PREFIXES = {
    "run": "spec.", "namespace": "ConfigMap finetune-defaults, ", "operator": "the operator's configuration, defaults.",
}  # fmt: skip
"""Text before a field in a message, by the origin of its value, the topmost layer first."""


def origin_prefix(origins: Mapping[str, str], field: str) -> str:
    """Return the text before ``field`` in a message.

    ``origins`` maps each field that has a value to its origin; a field of an object has the origin of the object as well. A value without an
    origin is named as a field of the run, where a user would set it.
    """
    path = re.sub(r"\[.*", "", field)
    found = {origin for known, origin in origins.items() if _overlap(known, path)}
    return next((prefix for origin, prefix in PREFIXES.items() if origin in found), PREFIXES["run"])


def is_above(origins: Mapping[str, str], field: str, other: str) -> bool:
    """Return whether the value of ``field`` comes from a layer above that of ``other``: run, namespace, operator, presets."""
    return _rank(origins, field) < _rank(origins, other)


def origins_below(origins: Mapping[str, str], field: str) -> tuple[str, ...]:
    """Return the beginnings of the origins that are below that of ``field``."""
    return (*tuple(PREFIXES)[_rank(origins, field) + 1 :], "preset")


def _rank(origins: Mapping[str, str], field: str) -> int:
    """Return the position of a field's origin in :data:`PREFIXES`; of presets and derived values, the number of its entries."""
    origin = origins.get(field, "")
    return tuple(PREFIXES).index(origin) if origin in PREFIXES else len(PREFIXES)


def explicit_fields(resolved: Mapping[str, Any], *sections: str) -> tuple[str, ...]:
    """Return the fields of these sections that a person set: in the run, in the namespace, or in the operator's configuration.

    ``resolved`` is ``status.resolved``, whose ``origins`` has the fields that the run does not set.
    """
    default = {path for origin, paths in (resolved.get("origins") or {}).items() if origin not in PREFIXES for path in paths}
    spec = resolved.get("spec") or {}
    return tuple(sorted(path for path, _ in leaves({name: spec.get(name) or {} for name in sections}) if path not in default))


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
