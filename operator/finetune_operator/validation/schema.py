"""A structural schema of ``apiextensions.k8s.io/v1`` as a tree of nodes, compiled once and used for every object.

Compilation rejects unsupported keywords, so that none is ignored silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

_VALIDATED = frozenset({
    "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minItems", "maxItems", "minProperties", "maxProperties", "required", "nullable", "properties",
    "additionalProperties", "items", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations",
})  # fmt: skip
_WITHOUT_EFFECT = frozenset({"description", "title", "example", "externalDocs", "x-kubernetes-map-type"})
_RULE_KEYS = frozenset({"rule", "message", "fieldPath", "reason"})
_CHECKED_FORMATS = frozenset({"date-time", "datetime"})
# Formats for which the API server has no check, for any value of the right type.
_FREE_FORMATS = frozenset({"password", "int32", "int64", "float", "double"})


class SchemaError(ValueError):
    """A definition uses a keyword that the validator does not support; the message has its path."""


@dataclass(frozen=True)
class RuleSource:
    """One entry of ``x-kubernetes-validations``."""

    expression: str
    message: str = ""
    field_path: str = ""
    reason: str = "FieldValueInvalid"


@dataclass(frozen=True)
class Node:
    """One node of the schema. ``None`` means that the keyword is absent."""

    type: str
    int_or_string: bool = False
    preserve_unknown: bool = False
    nullable: bool = False
    format: str = ""
    enum: tuple[Any, ...] = ()
    pattern: str = ""
    min_length: int | None = None
    max_length: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    min_items: int | None = None
    max_items: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    required: tuple[str, ...] = ()
    properties: Mapping[str, Node] = field(default_factory=dict)
    additional: Node | None = None
    items: Node | None = None
    list_type: str = "atomic"
    list_keys: tuple[str, ...] = ()
    rules: tuple[RuleSource, ...] = ()

    def of_field(self, name: str) -> Node | None:
        """Return the node of a field of an object, or of an entry of a map."""
        return self.properties.get(name) or self.additional

    @property
    def types(self) -> tuple[str, ...]:
        """The JSON types that a value may have; empty if any type is valid."""
        if self.int_or_string:
            return "integer", "string"
        return (self.type,) if self.type else ()

    @cached_property
    def has_rules(self) -> bool:
        """Whether the node or a descendant has a rule."""
        return bool(self.rules) or any(below.has_rules for below in self._below())

    @cached_property
    def has_numbers(self) -> bool:
        """Whether the node or a descendant is of type number: rules receive a double for any JSON number."""
        return self.type == "number" or any(below.has_numbers for below in self._below())

    @cached_property
    def has_keyed_lists(self) -> bool:
        """Whether the node or a descendant is a list of type map or set."""
        return self.list_type != "atomic" or any(below.has_keyed_lists for below in self._below())

    @cached_property
    def is_closed(self) -> bool:
        """Whether every possible field of the node and its descendants has a node."""
        described = self.type != "object" or bool(self.properties) or self.additional is not None
        return described and not self.preserve_unknown and all(below.is_closed for below in self._below())

    def _below(self) -> list[Node]:
        nodes = [self.additional, self.items, *self.properties.values()]
        return [node for node in nodes if node is not None]


def compile_schema(schema: Mapping[str, Any], place: str = "") -> Node:
    """Compile a structural schema.

    Raises:
        SchemaError: the validator does not support a keyword.
    """
    elsewhere = {"default"} if place == "status" else set()  # the store applies this default; the definition has no other
    unknown = sorted(set(schema) - _VALIDATED - _WITHOUT_EFFECT - elsewhere)
    if unknown:
        raise SchemaError(f"{place or 'the schema'}: the validator does not support {unknown[0]}")
    value_format = schema.get("format", "")
    if value_format not in _CHECKED_FORMATS | _FREE_FORMATS | {""}:
        raise SchemaError(f"{place}: the validator does not support format {value_format}")
    additional, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(additional, bool):
        raise SchemaError(f"{place}: the validator supports additionalProperties only as a schema")
    return Node(
        type=schema.get("type", ""),
        int_or_string=schema.get("x-kubernetes-int-or-string", False),
        preserve_unknown=schema.get("x-kubernetes-preserve-unknown-fields", False),
        nullable=schema.get("nullable", False),
        format=value_format if value_format in _CHECKED_FORMATS else "",
        enum=tuple(schema.get("enum", ())),
        pattern=schema.get("pattern", ""),
        min_length=schema.get("minLength"),
        max_length=schema.get("maxLength"),
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        exclusive_minimum=schema.get("exclusiveMinimum", False),
        exclusive_maximum=schema.get("exclusiveMaximum", False),
        min_items=schema.get("minItems"),
        max_items=schema.get("maxItems"),
        min_properties=schema.get("minProperties"),
        max_properties=schema.get("maxProperties"),
        required=tuple(schema.get("required", ())),
        properties={
            name: compile_schema(below, f"{place}.{name}" if place else name)
            for name, below in schema.get("properties", {}).items()
        },
        additional=compile_schema(additional, f"{place}[*]") if additional is not None else None,
        items=compile_schema(items, f"{place}[]") if items is not None else None,
        list_type=schema.get("x-kubernetes-list-type", "atomic"),
        list_keys=tuple(schema.get("x-kubernetes-list-map-keys", ())),
        rules=tuple(_rule(entry, place) for entry in schema.get("x-kubernetes-validations", ())),
    )


def _rule(entry: Mapping[str, Any], place: str) -> RuleSource:
    unknown = sorted(set(entry) - _RULE_KEYS)
    if unknown:
        raise SchemaError(f"{place or 'the schema'}: the validator does not support {unknown[0]} in a rule")
    return RuleSource(
        expression=entry["rule"],
        message=entry.get("message", "").strip(),
        field_path=entry.get("fieldPath", "").lstrip("."),
        reason=entry.get("reason", "FieldValueInvalid"),
    )
