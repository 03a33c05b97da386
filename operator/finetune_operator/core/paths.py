"""Dotted paths into JSON documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]
Object = Mapping[str, Any]
"""A Kubernetes object that is not changed here."""


def lookup(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, ``None`` where there is none."""
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def assign(document: Json, path: str, value: Any) -> None:
    """Set the value at a dotted path, and create missing objects on the path."""
    *parents, last = path.split(".")
    for key in parents:
        document = document.setdefault(key, {})
    document[last] = value


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is not an object, with its path. A list is one value."""
    for key, value in document.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from leaves(value, path)
        else:
            yield path, value
