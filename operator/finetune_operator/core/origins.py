"""The origin of a value, as a prefix in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
