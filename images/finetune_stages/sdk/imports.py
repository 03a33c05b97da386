"""Imports of large libraries: faster, and without optional packages."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Exclude everything imported inside from garbage collection.

    Torch and transformers create about a million objects that live as long as the process, and scanning them repeatedly takes a
    third of the import time. Only imports belong inside: the collector would never free a reference cycle that is created there, for
    example a model.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Make imports of ``packages`` fail inside, as if they were not installed, unless they were imported before."""
    hidden = [name for name in packages if name not in sys.modules]
    nothing: Any = None  # instead of a module it makes an import raise ModuleNotFoundError
    sys.modules.update(dict.fromkeys(hidden, nothing))
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
