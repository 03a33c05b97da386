"""Machine-readable output: JSON, YAML and names."""

from __future__ import annotations

import json
import sys
from typing import Any

from finetune_operator.api.finetunerun import GROUP
from finetune_operator.api.kubernetes_yaml import dump


def print_object(document: Any, form: str) -> None:
    """Print an object, or a list of them, as ``json`` or ``yaml``."""
    if form == "json":
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        sys.stdout.write(dump(document, width=120))


def print_name(document: Any) -> None:
    """Print the name of an object as ``kubectl -o name`` does: ``finetunerun.finetunerun.io/demo``."""
    print(f"{str(document['kind']).lower()}.{GROUP}/{document['metadata']['name']}")


def as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return objects as one ``List``, as ``kubectl get -o`` prints them."""
    return {"apiVersion": "v1", "kind": "List", "items": items}
