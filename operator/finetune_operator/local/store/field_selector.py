"""Field selectors: the ``fieldSelector`` of lists. As on an API server, each kind has fixed selectable fields."""

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
    """Reject a field that is not selectable for a kind.

    Raises:
        Invalid: with the message of the API server.
    """
    for field in fields:
        if field not in _OF_ALL | _BY_KIND.get(kind, frozenset()):
            raise rejections.bad_request(f"field label not supported: {field}")


def match(item: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    """Return whether every field has its required value; an absent field is empty."""
    return all(str(lookup(item, path) or "") == value for path, value in fields.items())


def parse(text: str) -> dict[str, str]:
    """Parse a selector such as ``type=Warning,involvedObject.uid==x``.

    Raises:
        ValueError: it is not a field selector, or it contains ``!=``, which is not supported.
    """
    found = {}
    for part in filter(None, text.split(",")):
        path, equals, value = part.partition("=")
        if not equals or not path or path.endswith("!"):
            raise ValueError(f"invalid field selector: {part!r}: expected path=value")
        found[path.strip()] = value.removeprefix("=").strip()
    return found
