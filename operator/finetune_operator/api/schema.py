"""From pydantic models to a structural schema of ``apiextensions.k8s.io/v1``.

Structural means: no references, no ``anyOf`` with ``null``, a type on every node. The default of the presets and the bounds of a
number are appended to the descriptions of ``spec``, because ``oc explain`` shows neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from .presets import preset
from .section import RUN_ONLY

_KEPT = (
    "type", "description", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "maxProperties", "required",
)  # fmt: skip
_RULES = "x-kubernetes-validations"


def structural(model: type[BaseModel], *, defaults: bool = False) -> dict[str, Any]:
    """Return the structural schema of ``model``, with the YAML names of the fields.

    With ``defaults``, the schema lacks the rules that only a run must obey.
    """
    schema = model.model_json_schema(by_alias=True, schema_generator=GenerateJsonSchema, mode="validation")
    definitions = schema.get("$defs", {})
    for section in (schema, *definitions.values()) if defaults else ():
        rules = section.get(_RULES, [])
        section[_RULES] = [rule for rule in rules if rule not in section[RUN_ONLY]]
    return _node(schema, definitions, "")


def _node(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    schema = _flatten(schema, definitions)
    node = {key: schema[key] for key in _KEPT if key in schema}
    node |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
    for bound in ("Minimum", "Maximum"):
        exclusive = schema.get(f"exclusive{bound}")
        if exclusive is not None:
            node |= {bound.lower(): exclusive, f"exclusive{bound}": True}
    if node.get("type") == "object":
        _object(node, schema, definitions, path)
    if node.get("type") == "array":
        node["items"] = _node(schema["items"], definitions, f"{path}[]")
    if path.startswith("spec.") and "description" in node:
        default = "" if "Default:" in node["description"] else _default_sentence(path)
        node["description"] = " ".join(filter(None, (node["description"], default, _bounds_sentence(node))))
    return dict(sorted(node.items()))


def _object(node: dict[str, Any], schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> None:
    properties = schema.get("properties")
    extra = schema.get("additionalProperties")
    if properties:
        node["properties"] = {
            key: _node(value, definitions, f"{path}.{key}" if path else key) for key, value in properties.items()
        }
    elif isinstance(extra, Mapping) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node["additionalProperties"] = _node(extra, definitions, f"{path}.*")


def _flatten(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``schema`` with references resolved and ``X | None`` reduced to ``X``: an absent field and a null one are equivalent."""
    flat = dict(schema)
    while "$ref" in flat or "anyOf" in flat:
        inner: Mapping[str, Any]
        if "$ref" in flat:
            inner = definitions[flat.pop("$ref").rsplit("/", 1)[1]]
        else:
            options = [option for option in flat.pop("anyOf") if option.get("type") != "null"]
            inner = options[0] if len(options) == 1 else {}
        flat = {**inner, **flat}
    if "const" in flat:  # a choice of one
        flat["enum"] = [flat.pop("const")]
    if "enum" in flat:
        flat.setdefault("type", "string")
    if flat.get("type") == "object" and not flat.get("properties") and flat.get("additionalProperties") in (None, True):
        flat.setdefault("x-kubernetes-preserve-unknown-fields", True)
    return flat


def _default_sentence(path: str) -> str:
    """Return the default of a field of ``spec`` as a sentence: ``Default: 5e-06 (lora 0.0002).``"""
    keys = path.split(".")[1:]
    values = {algorithm: _lookup(preset(algorithm), keys) for algorithm in ("osft", "sft", "lora")}
    common = values["osft"]
    others = {name: _shown(value) for name, value in values.items() if value not in (common, None)}
    if common is None:
        return "".join(f"Default: {value}." if name in keys else f"Default: {value} ({name})." for name, value in others.items())
    exceptions = ", ".join(f"{name} {value}" for name, value in others.items())
    return f"Default: {_shown(common)} ({exceptions})." if others else f"Default: {_shown(common)}."


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _bounds_sentence(node: Mapping[str, Any]) -> str:
    """Return the bounds of a number as a sentence: ``Must be at least 1 and at most 64.``"""
    least, most = node.get("minimum"), node.get("maximum")
    bounds = []
    if least is not None:
        bounds.append(f"{'greater than' if node.get('exclusiveMinimum') else 'at least'} {_shown(least)}")
    if most is not None:
        bounds.append(f"{'less than' if node.get('exclusiveMaximum') else 'at most'} {_shown(most)}")
    return f"Must be {' and '.join(bounds)}." if bounds else ""


def _lookup(document: Any, keys: list[str]) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return None if isinstance(document, dict) else document
