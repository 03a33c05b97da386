"""Field paths that cost nothing until a problem is written down."""

from __future__ import annotations

from typing import TypeAlias

Path: TypeAlias = "tuple[Path, str] | None"
"""A path as a chain from the leaf up: ``((None, "spec"), ".dataset")``. ``None`` is the object itself."""


def child(path: Path, name: str) -> Path:
    """The path of a field: ``spec`` and ``dataset`` make ``spec.dataset``."""
    return path, f".{name}" if path else name


def key(path: Path, name: str) -> Path:
    """The path of a map's entry, as rules write it: ``labels[team]``."""
    return path, f"[{name}]"


def index(path: Path, position: int) -> Path:
    """The path of a list's item: ``tasks[0]``."""
    return path, f"[{position}]"


def text(path: Path) -> str:
    """The path as people read it."""
    parts = []
    while path is not None:
        path, part = path
        parts.append(part)
    return "".join(reversed(parts))
