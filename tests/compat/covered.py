"""What Training Hub's backends call of CUDA, and what the shim redirects. Standard library; it runs in a set's environment.

It prints JSON: functions of ``torch.cuda`` that are called without a guard and that the shim does not redirect, and modules whose
devices it did not redirect.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path

import sitecustomize as shim

HARMLESS = {
    "is_available", "device_count", "manual_seed_all", "memory_allocated", "max_memory_allocated", "get_device_capability",
    "get_device_properties", "is_bf16_supported", "is_initialized",
}  # fmt: skip
"""Functions that work without a GPU, or that only flash attention needs, which the tests switch off."""
GUARDED = {"get_rng_state", "set_rng_state"}
"""Functions that the packages call only if a GPU is available."""


def called(tree: ast.AST) -> set[str]:
    """Return the names of the functions of ``torch.cuda`` that a module uses."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "cuda"
        and isinstance(node.value.value, ast.Name)
        and node.value.value.id == "torch"
    }


def main() -> None:
    """Print what the shim does not cover."""
    found: dict[str, list[str]] = {"calls": [], "devices": [], "meshes": []}
    for package in shim.PACKAGES:
        folder = Path(str(importlib.import_module(package).__file__)).parent
        for file in sorted(folder.glob("*.py")):
            text = file.read_text(encoding="utf-8")
            unknown = called(ast.parse(text)) - set(shim.REDIRECTED) - HARMLESS - GUARDED
            found["calls"] += [f"{package}.{file.stem}: torch.cuda.{name}" for name in sorted(unknown)]
            if file.stem == "__init__" or ('torch.device("cuda"' not in text and "init_device_mesh" not in text):
                continue
            module = importlib.import_module(f"{package}.{file.stem}")
            if 'torch.device("cuda"' in text and not isinstance(module.torch, shim.RedirectedTorch):
                found["devices"].append(module.__name__)
            if "init_device_mesh" in text and module.init_device_mesh.__module__ != shim.__name__:
                found["meshes"].append(module.__name__)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
