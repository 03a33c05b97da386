"""Field selectors: the ``fieldSelector`` of lists. Which fields a kind can be selected by is fixed, as on an API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.crd import SELECTABLE
from finetune_operator.api.kinds import EVENT, FINETUNERUN, Kind
from finetune_operator.core.paths import lookup

from . import rejections

_OF_RUNS = frozenset(path.removeprefix(".") for path in SELECTABLE)
_OF_ALL = frozenset({"metadata.name", "metadata.namespace"})
_OF_EVENTS = frozenset({
    *(f"involvedObject.{field}" for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")),
    "reason", "reportingComponent", "source", "type",
})  # fmt: skip

_BY_KIND = {EVENT: _OF_EVENTS, FINETUNERUN: _OF_RUNS}


def check(kind: Kind, fields: Mapping[str, str]) -> None:
    """Refuse a field that objects of the kind are not selected by.

    Raises:
        Invalid: as an API server says it.
    """
    for field in fields:
        if field not in _OF_ALL | _BY_KIND.get(kind, frozenset()):
            raise rejections.bad_request(f"field label not supported: {field}")


def match(item: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    """Whether every field has the value that is wanted; one that is absent is empty."""
    return all(str(lookup(item, path) or "") == value for path, value in fields.items())


def parse(text: str) -> dict[str, str]:
    """``type=Warning,involvedObject.uid==x``.

    Raises:
        ValueError: it is no field selector, or one with ``!=``, which nobody here needs.
    """
    found = {}
    for part in filter(None, text.split(",")):
        path, equals, value = part.partition("=")
        if not equals or not path or path.endswith("!"):
            raise ValueError(f"invalid field selector: {part!r}: expected path=value")
        found[path.strip()] = value.removeprefix("=").strip()
    return found
