"""Field paths that are only rendered when a problem is reported."""

from __future__ import annotations

from typing import TypeAlias

Path: TypeAlias = "tuple[Path, str] | None"
"""A path as a chain from the leaf up: ``((None, "spec"), ".dataset")``. ``None`` is the object itself."""


def child(path: Path, name: str) -> Path:
    """Return the path of a field: ``spec`` and ``dataset`` give ``spec.dataset``."""
    return path, f".{name}" if path else name


def key(path: Path, name: str) -> Path:
    """Return the path of a map entry, as rules write it: ``labels[team]``."""
    return path, f"[{name}]"


def index(path: Path, position: int) -> Path:
    """Return the path of a list item: ``tasks[0]``."""
    return path, f"[{position}]"


def text(path: Path) -> str:
    """Return the path as text."""
    parts = []
    while path is not None:
        path, part = path
        parts.append(part)
    return "".join(reversed(parts))
