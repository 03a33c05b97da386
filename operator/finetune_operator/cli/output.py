"""Machine-readable output: JSON, YAML and names."""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml

from finetune_operator.api.finetunerun import GROUP


def print_object(document: Any, form: str) -> None:
    """Print an object, or a list of them, as ``json`` or ``yaml``."""
    if form == "json":
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=True, width=120)


def print_name(document: Any) -> None:
    """Print the name of an object as ``kubectl -o name`` does: ``finetunerun.finetunerun.io/demo``."""
    print(f"{str(document['kind']).lower()}.{GROUP}/{document['metadata']['name']}")


def as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return objects as one ``List``, as ``kubectl get -o`` prints them."""
    return {"apiVersion": "v1", "kind": "List", "items": items}
