"""Pruning and validation of values by a structural schema, as the API server does when it decodes and validates.

Source: ``apiextensions-apiserver`` (``schema/pruning``, ``schema/defaulting/prunenulls.go``, ``schema/listtype``,
``validation/ratcheting.go``) and ``kube-openapi`` (``validation/validate``), Kubernetes 1.34.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from .path import Path, child, index, text
from .pattern import compile_pattern
from .problem import CauseType, Problem
from .schema import Node

ABSENT: Any = object()
"""Placeholder for a missing old value."""

_OF_EVERY_OBJECT = frozenset({"apiVersion", "kind", "metadata"})
_NOTHING = Node(type="")
_INT64 = range(-(2**63), 2**63)
_SAFE_INTEGER = 2**53 - 1
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})")


def prune(node: Node, value: Any, path: Path, unknown: list[Problem], old: Any = ABSENT) -> Any:
    """Return ``value`` without unknown fields and without nulls that mean "absent". The argument does not change.

    Args:
        node: the node of the schema.
        value: a JSON value.
        path: its path.
        unknown: receives one problem for each dropped field.
        old: a pruned value that ``value`` was patched from; parts that both share are not checked again.
    """
    if value is old:
        return value
    if isinstance(value, dict):
        return _prune_object(node, value, path, unknown, old if isinstance(old, dict) else {})
    if isinstance(value, list) and (node.items is not None or not node.preserve_unknown):
        items = node.items or _NOTHING
        return [prune(items, item, index(path, i), unknown) for i, item in enumerate(value)]
    if type(value) is int and value not in _INT64:
        return float(value)  # like Go's decoder
    if type(value) is float and node.type == "integer" and value.is_integer() and abs(value) <= _SAFE_INTEGER:
        return int(value)  # like Go's encoder
    return value


def _prune_object(node: Node, value: dict[str, Any], path: Path, unknown: list[Problem], old: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name, item in value.items():
        below = node.of_field(name)
        if path is None and name in _OF_EVERY_OBJECT:
            result[name] = item
        elif below is not None:
            if item is not None or below.nullable:
                result[name] = prune(below, item, child(path, name), unknown, old.get(name, ABSENT))
        elif node.preserve_unknown:
            result[name] = item
        else:
            unknown.append(Problem(text(child(path, name)), CauseType.UNKNOWN_FIELD))
    return result


def identical(new: Any, old: Any) -> bool:
    """Return whether JSON values are equal; 1, 1.0 and true are different."""
    if new is old:
        return True
    if type(new) is not type(old):
        return False
    if isinstance(new, dict):
        return len(new) == len(old) and all(name in old and identical(item, old[name]) for name, item in new.items())
    if isinstance(new, list):
        return len(new) == len(old) and all(map(identical, new, old))
    return bool(new == old)


def unchanged(node: Node, new: Any, old: Any) -> bool:
    """Return whether the API server treats ``new`` as unchanged (ratcheting: old errors do not block an update of other fields).

    A field without a schema is never unchanged, nor is an object that contains one.
    """
    if old is ABSENT:
        return False
    if new is old and node.is_closed:
        return True
    if isinstance(new, dict) and isinstance(old, dict):
        return len(new) == len(old) and all(
            name in old and (below := node.of_field(name)) is not None and unchanged(below, item, old[name])
            for name, item in new.items()
        )
    if isinstance(new, list) and isinstance(old, list) and node.list_type == "map" and node.items is not None:
        items = node.items
        return len(new) == len(old) and all(unchanged(items, item, old_item(node, item, old)) for item in new)
    return identical(new, old)


def old_item(node: Node, item: Any, old: Any) -> Any:
    """Return the old value of a list item: the item with the same keys in a list of type map, else :data:`ABSENT`."""
    if node.list_type != "map" or not isinstance(old, list) or not isinstance(item, dict):
        return ABSENT
    keys = [item.get(name, ABSENT) for name in node.list_keys]
    if ABSENT in keys:
        return ABSENT
    for candidate in old:
        if isinstance(candidate, dict) and identical([candidate.get(name, ABSENT) for name in node.list_keys], keys):
            return candidate
    return ABSENT


class StructureCheck:
    """Checks a pruned value and collects :attr:`problems`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def check(self, node: Node, value: Any, path: Path, old: Any = ABSENT) -> None:
        """Check ``value``; parts that are unchanged from ``old`` are accepted."""
        if unchanged(node, value, old):
            return
        self._type(node, value, path)
        if isinstance(value, str):
            self._string(node, value, path)
        elif isinstance(value, list):
            self._list(node, value, path, old)
        elif isinstance(value, dict):
            self._object(node, value, path, old)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._number(node, value, path)
        if node.enum and not any(identical(value, one) for one in node.enum):
            listed = ", ".join(f'"{one}"' for one in node.enum)
            self._add(path, CauseType.NOT_SUPPORTED, f"supported values: {listed}", value)

    def check_keyed_lists(self, node: Node, value: Any, path: Path) -> None:
        """Items of lists of type set, and keys of items of lists of type map, must be unique."""
        if not node.has_keyed_lists:
            return
        if isinstance(value, dict):
            for name, item in value.items():
                below = node.of_field(name)
                if below is not None:
                    self.check_keyed_lists(below, item, child(path, name))
        elif isinstance(value, list):
            if node.list_type != "atomic":
                self._unique(node, value, path)
            if node.items is not None:
                for i, item in enumerate(value):
                    self.check_keyed_lists(node.items, item, index(path, i))

    def _add(self, path: Path, kind: CauseType, detail: str = "", *value: Any) -> None:
        self.problems.append(Problem(text(path), kind, detail, *value))

    def _invalid(self, path: Path, value: Any, message: str) -> None:
        self._add(path, CauseType.INVALID, f"{text(path)} in body {message}", value)

    def _type(self, node: Node, value: Any, path: Path) -> None:
        found = json_type(value)
        if not node.types or (value is None and node.nullable) or found in node.types:
            return
        if found == "integer" and "number" in node.types:
            return
        if found == "array" and node.format:  # kube-openapi has this error, and accepts the value
            return
        expected = ",".join(node.types)
        self._add(path, CauseType.TYPE_INVALID, f'{text(path)} in body must be of type {expected}: "{found}"', found)

    def _string(self, node: Node, value: str, path: Path) -> None:
        if node.max_length is not None and len(value) > node.max_length:
            unit = "byte" if node.max_length == 1 else "bytes"
            self._add(path, CauseType.TOO_LONG, f"may not be more than {node.max_length} {unit}")
        elif node.min_length is not None and len(value) < node.min_length:
            self._invalid(path, value, f"should be at least {node.min_length} chars long")
        elif node.pattern and not compile_pattern(node.pattern).search(value):
            self._invalid(path, value, f"should match '{node.pattern}'")
        if node.format and not is_date_time(value):
            self._add(path, CauseType.TYPE_INVALID, f'{text(path)} in body must be of type {node.format}: "{value}"', value)

    def _number(self, node: Node, value: float, path: Path) -> None:
        if node.maximum is not None and (value >= node.maximum if node.exclusive_maximum else value > node.maximum):
            self._invalid(path, value, f"should be less than {'' if node.exclusive_maximum else 'or equal to '}{node.maximum}")
        if node.minimum is not None and (value <= node.minimum if node.exclusive_minimum else value < node.minimum):
            self._invalid(path, value, f"should be greater than {'' if node.exclusive_minimum else 'or equal to '}{node.minimum}")

    def _list(self, node: Node, value: list[Any], path: Path, old: Any) -> None:
        if node.items is not None:
            for i, item in enumerate(value):
                self.check(node.items, item, index(path, i), old_item(node, item, old))
        if node.max_items is not None and len(value) > node.max_items:
            self._too_many(path, len(value), node.max_items)
        if node.min_items is not None and len(value) < node.min_items:
            self._invalid(path, len(value), f"should have at least {node.min_items} items")

    def _object(self, node: Node, value: Mapping[str, Any], path: Path, old: Any) -> None:
        if node.max_properties is not None and len(value) > node.max_properties:
            self._too_many(path, len(value), node.max_properties)
        if node.min_properties is not None and len(value) < node.min_properties:
            self._invalid(path, len(value), f"should have at least {node.min_properties} properties")
        before = old if isinstance(old, dict) else {}
        for name, item in value.items():
            below = node.of_field(name)
            if below is not None:
                self.check(below, item, child(path, name), before.get(name, ABSENT))
        for name in node.required:
            if name not in value:
                self._add(child(path, name), CauseType.REQUIRED)

    def _too_many(self, path: Path, count: int, limit: int) -> None:
        self._add(path, CauseType.TOO_MANY, f"must have at most {limit} item{'' if limit == 1 else 's'}", count)

    def _unique(self, node: Node, value: list[Any], path: Path) -> None:
        seen: list[Any] = []
        repeated: list[Any] = []
        for i, item in enumerate(value):
            if node.list_type == "map":
                if item is not None and not isinstance(item, dict):
                    self._add(index(path, i), CauseType.INVALID, "must be an object for an array of list-type map", item)
                    return
                keys = item or {}
                identity: Any = {name: keys[name] for name in node.list_keys if name in keys}
            else:
                identity = item
            if not any(identical(identity, other) for other in seen):
                seen.append(identity)
            elif not any(identical(identity, other) for other in repeated):  # the server reports only the first duplicate
                repeated.append(identity)
                self._add(index(path, i), CauseType.DUPLICATE, "", identity)


def json_type(value: Any) -> str:
    """Return the JSON schema type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "integer", float: "number", str: "string", list: "array", dict: "object"}[type(value)]


def is_date_time(value: str) -> bool:
    """Return whether go-openapi accepts a date-time (RFC 3339); it allows any character before the fraction."""
    day, *rest = value.lower().split("t")
    stamp = _TIME.fullmatch(rest[0]) if rest else None
    if stamp is None or not _DATE.fullmatch(day):
        return False
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return stamp[1] <= "23" and stamp[2] <= "59" and stamp[3] <= "59"
