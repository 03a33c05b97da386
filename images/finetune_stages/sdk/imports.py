"""Imports of large libraries: quick, and without what they would import only because it is there."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Keep the garbage collector away from what is imported inside, then and later.

    Torch and transformers make a million objects that stay as long as the process, and looking through them again and again takes
    a third of their imports' time. What is to be freed one day is no import and is not made inside: of a model with a circle of
    references, no collection would ever free the memory.
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
    """Let imports of ``packages`` fail inside, as where they are not installed, unless they were imported before."""
    hidden = [name for name in packages if name not in sys.modules]
    nothing: Any = None  # in place of a module it makes an import raise ModuleNotFoundError
    sys.modules.update(dict.fromkeys(hidden, nothing))
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
