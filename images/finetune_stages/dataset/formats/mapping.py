"""Description of what was converted: columns that were read and ignored, and renamed roles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from finetune_contract.row_formats import RowFormat
from finetune_stages.chat.structure import COLUMNS
from finetune_stages.sources.json_values import listed

from .conversion import Converted, Row

_SHOWN = 6


@dataclass
class Mapping:
    """What was converted in all rows of a source.

    Attributes:
        read: columns that were read, in the order of their first use.
        ignored: columns without an effect, with the number of rows that have a value in them.
        renamed: names of roles that were mapped to another name, each with that name.
    """

    format: RowFormat
    read: dict[str, None] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    renamed: set[tuple[str, str]] = field(default_factory=set)

    def add(self, row: Row, found: Converted) -> None:
        """Count one row and its published form."""
        self.read.update(dict.fromkeys(found.used))
        self.renamed |= found.renamed
        effective = COLUMNS - found.values.keys() if "messages" in found.values else frozenset()
        self.ignored.update(
            column
            for column, value in row.items()
            if column not in found.used and column not in effective and value not in (None, "", [])
        )

    def __str__(self) -> str:
        columns = "column" if len(self.read) == 1 else "columns"
        parts = [f"format {self.format}, read from {columns} {listed(list(self.read), _SHOWN)}"]
        if self.renamed:
            parts.append(f"roles {listed([f'{name} as {role}' for name, role in sorted(self.renamed)], _SHOWN)}")
        return "; ".join([*parts, *ignored_note(self.ignored)])


def ignored_note(ignored: Counter[str]) -> list[str]:
    """Return a part of a description about columns without an effect; empty if there are none."""
    counts = [f"{column} ({count:,})" for column, count in sorted(ignored.items(), key=lambda item: (-item[1], item[0]))]
    return [f"ignored columns (rows) {listed(counts, _SHOWN)}"] if counts else []
