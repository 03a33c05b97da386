"""Machine-readable output: JSON, YAML and names."""

from __future__ import annotations

import json
from typing import Any

from finetune_operator.api.finetunerun import GROUP
from finetune_operator.api.kubernetes_yaml import dump

from .echo import KEPT, echo, visible


def print_object(document: Any, form: str) -> None:
    """Print an object, or a list of them, as ``json`` or ``yaml``.

    With characters that a terminal does not print, all characters beyond ASCII are escaped, which a parser reads back.
    """
    text = _text(document, form, unicode=True)
    shown = visible(text, keep=KEPT) == text
    print(text if shown else _text(document, form, unicode=False), end="")


def _text(document: Any, form: str, *, unicode: bool) -> str:
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=not unicode) + "\n"
    return dump(document, width=120, allow_unicode=unicode)


def print_name(document: Any) -> None:
    """Print the name of an object as ``kubectl -o name`` does: ``finetunerun.finetunerun.io/demo``."""
    echo(f"{str(document['kind']).lower()}.{GROUP}/{document['metadata']['name']}")


def as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return objects as one ``List``, as ``kubectl get -o`` prints them."""
    return {"apiVersion": "v1", "kind": "List", "items": items}
