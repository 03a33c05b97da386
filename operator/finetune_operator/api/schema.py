"""From pydantic models to a structural schema of ``apiextensions.k8s.io/v1``.

Structural means: no references, no ``anyOf`` with ``null``, a type on every node. Descriptions get the preset's values
appended, so that ``oc explain`` tells what happens where a field is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from .presets import preset

_KEPT = (
    "type", "description", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "maxProperties", "required",
)  # fmt: skip


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of ``model``, fields by their YAML names."""
    schema = model.model_json_schema(by_alias=True, schema_generator=GenerateJsonSchema, mode="validation")
    return _node(schema, schema.get("$defs", {}), "")


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
    default = _default_sentence(path)
    if default and "description" in node and "Default" not in node["description"]:
        node["description"] += f" {default}"
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
    """References resolved and ``X | None`` reduced to ``X``: an absent field and a null one are the same here."""
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
    """What the presets say of a field of ``spec``: ``Default: 5e-06 (lora: 0.0002).``"""
    if not path.startswith("spec."):
        return ""
    keys = path.split(".")[1:]
    values = {algorithm: _lookup(preset(algorithm), keys) for algorithm in ("osft", "sft", "lora")}
    common = values["osft"]
    others = [f"{name}: {json.dumps(value)}" for name, value in values.items() if value != common and value is not None]
    if common is None:
        return f"Default: {', '.join(others)}." if others else ""
    if isinstance(common, (dict, list)) and not (isinstance(common, list) and common and isinstance(common[0], str)):
        return ""
    shown = json.dumps(common).strip('"')
    return f"Default: {shown} ({', '.join(others)})." if others else f"Default: {shown}."


def _lookup(document: Any, keys: list[str]) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return None if isinstance(document, dict) else document
