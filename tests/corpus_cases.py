"""The corpus of objects in ``tests/corpus``: what the API server accepts, what it rejects, and which changes it accepts.

A file of ``bad`` and of ``transitions`` begins with ``# fields:`` and the paths that the rejection must name (``none`` where there
is no rejection). A transition holds two documents, before and after, and may be one of ``# subresource: status``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Case:
    """One object, or one change of an object, with the fields that its rejection names."""

    name: str
    object: dict[str, Any]
    fields: frozenset[str]
    old: dict[str, Any] | None = None
    subresource: str = ""

    def as_line(self) -> dict[str, Any]:
        """The input of ``hack/crdlint``."""
        return {"name": self.name, "object": self.object, "old": self.old, "subresource": self.subresource}


def cases() -> list[Case]:
    """Every case, in the order of file names."""
    return [_read(path) for path in sorted(CORPUS.glob("*/*.yaml"))]


def _read(path: Path) -> Case:
    text = path.read_text(encoding="utf-8")
    head = dict(line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("# ") and ": " in line)
    fields = {field for field in head.get("fields", "none").split(", ") if field != "none"}
    *old, new = yaml.safe_load_all(text)
    name = f"{path.parent.name}/{path.stem}"
    return Case(name, new, frozenset(fields), old[0] if old else None, head.get("subresource", ""))
