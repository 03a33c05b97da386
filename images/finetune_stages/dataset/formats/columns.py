"""Names of the columns that each format reads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import get_args

from finetune_contract.row_formats import OPTIONAL, REQUIRED, RowFields, RowFormat

FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)


@dataclass(frozen=True)
class Columns:
    """The names of columns: those of ``dataset.fields``, or else the defaults."""

    fields: RowFields

    def name(self, field: str) -> str:
        """Return the column of a field of :class:`RowFields`, which by default has the name of the field."""
        stated: str | None = getattr(self.fields, field)
        return field if stated is None else stated

    def is_set(self, field: str) -> bool:
        """Return whether ``dataset.fields`` names the column."""
        return getattr(self.fields, field) is not None

    @property
    def named(self) -> tuple[str, ...]:
        """The fields that ``dataset.fields`` sets."""
        return tuple(field.name for field in fields(self.fields) if self.is_set(field.name))

    def candidates(self) -> tuple[RowFormat, ...]:
        """Return the formats that read every field that is set; all formats if none is set."""
        return tuple(one for one in FORMATS if set(self.named) <= {*REQUIRED[one], *OPTIONAL[one]})
