"""Conversion of the rows of a source to the form that is published. Rows with ``messages`` are not read by it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import DatasetInputs
from finetune_contract.row_formats import REQUIRED, RowFields, RowFormat
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.json_text import parse
from finetune_stages.sources.line_scan import Advance
from finetune_stages.sources.row_index import written_index

from .formats.columns import Columns
from .formats.conversion import Row, converted
from .formats.mapping import Mapping
from .formats.messages import RowFault
from .formats.missing_columns import missing_columns
from .formats.raw_columns import row_text
from .formats.recognition import recognized

_STEP = 1000
_PLAIN_MESSAGES = (b'{"messages": [{"role": "', b'{"messages":[{"role":"')
"""Beginnings of rows in format messages, which need not be parsed to recognize that."""


@dataclass(frozen=True)
class SourceFormat:
    """The format of the rows of a source.

    Attributes:
        format: ``messages`` if no row is in a known format.
        first: position of the first row in the format; ``None`` if the format is declared or not recognized.
        declared: whether ``dataset.format`` names the format.
    """

    format: RowFormat
    columns: Columns
    candidates: tuple[RowFormat, ...]
    first: int | None = None
    declared: bool = False

    def require_single(self, rows: JsonLines, name: str) -> None:
        """Check that no row is in another format, if the format is not declared. All rows are read.

        Raises:
            StageError: ``MixedFormats``.
        """
        for position, row, found in _recognized(rows, self.columns, self.candidates) if self.first is not None else ():
            if self._is_other(row, found):
                raise self._mixed(rows, name, position, found)

    def require_format(self, rows: JsonLines, name: str, position: int, row: Any) -> None:
        """Check that a row is in the format or in none, if the format is not declared.

        Raises:
            StageError: ``MixedFormats``.
        """
        found = None if self.first is None else recognized(row, self.columns, self.candidates)
        if found and self._is_other(row, found):
            raise self._mixed(rows, name, position, found)

    def missing_columns(self, rows: JsonLines, name: str) -> StageError | None:
        """Return the error if no row has the columns of the format, see :func:`.missing_columns.missing_columns`."""
        return missing_columns(rows, name, self.format, self.columns, is_declared=self.declared)

    def _is_other(self, row: Any, found: RowFormat) -> bool:
        """Return whether a row is in another format. A row with a part of the columns of this format is a bad row."""
        if found == self.format:
            return False
        stated = [row.get(self.columns.name(field)) is not None for field in REQUIRED[self.format]]
        return all(stated) or not any(stated)

    def _mixed(self, rows: JsonLines, name: str, position: int, found: RowFormat) -> StageError:
        shown = sorted([(position, found), (self.first or 0, self.format)])
        where = " and ".join(f"{rows.label(each)} is in format {form}" for each, form in shown)
        return StageError(
            reasons.MIXED_FORMATS,
            f"{name}: {where}; set dataset.format to the one to use, or set a source with rows in one format.",
        )


def source_format(rows: JsonLines, inputs: DatasetInputs) -> SourceFormat:
    """Return the declared format, or that of the first row whose format is known.

    Raises:
        StageError: ``BadDocument``: no format reads all columns in ``dataset.fields``.
    """
    columns = Columns(inputs.fields or RowFields())
    candidates = columns.candidates()
    if inputs.format != "auto":
        candidates = (inputs.format,) if inputs.format in candidates else ()
    if not candidates:
        named = ", ".join(columns.named)
        what = (
            f"no format reads all of {named}"
            if inputs.format == "auto"
            else f"format {inputs.format} does not read all of {named}"
        )
        raise StageError(reasons.BAD_DOCUMENT, f"dataset.fields: {what}; keep those of one format.")
    if inputs.format != "auto":
        return SourceFormat(inputs.format, columns, candidates, declared=True)
    first, _, found = next(_recognized(rows, columns, candidates), (None, None, candidates[0]))
    return SourceFormat(found, columns, candidates, first)


def convert_rows(rows: JsonLines, name: str, source: SourceFormat, target: Path, advance: Advance) -> tuple[JsonLines, Mapping]:
    """Write the rows in their published form to ``target``; return them and a description of what was converted.

    A row that cannot be converted is written as it is, with its fault. The other columns of a row keep their text.

    Raises:
        StageError: ``MixedFormats``: the format is not declared, and a row is in another one.
    """
    mapping, faults, starts = Mapping(source.format), dict(rows.faults), array("q", [0])
    locations = rows.locations()
    with target.open("wb", buffering=1 << 20) as stream:
        for position, text in enumerate(rows.texts()):
            content = text
            try:
                row = parse(text)
                source.require_format(rows, name, position, row)
                content = _content(row, text, source, mapping)
            except RowFault as error:
                faults.setdefault(int(locations[position, 0]), str(error))
            except ValueError:
                pass  # the check of the rows reports that it is not JSON
            starts.append(starts[-1] + stream.write(content) + stream.write(b"\n"))
            if not (position + 1) % _STEP:
                advance(_STEP)
    advance(len(rows) % _STEP)
    index = replace(written_index(locations[:, 0], locations[:, 1], starts), breaks=rows.index.breaks)
    return replace(rows, path=target, index=index, faults=faults, chosen=None), mapping


def _content(row: Row, text: bytes, source: SourceFormat, mapping: Mapping) -> bytes:
    found = converted(row, source.format, source.columns)
    mapping.add(row, found)
    others = (column for column in row if column not in found.used and column not in found.values)
    return row_text(found.values, text.decode(), others)


def _recognized(rows: JsonLines, columns: Columns, candidates: tuple[RowFormat, ...]) -> Iterator[tuple[int, Any, RowFormat]]:
    """Yield position, value and format of rows whose format is known. The value is ``None`` if the row was not parsed."""
    usual = not columns.named and candidates[0] == "messages"
    for position, text in enumerate(rows.texts()):
        if usual and text.startswith(_PLAIN_MESSAGES):
            yield position, None, "messages"
            continue
        try:
            row: Any = parse(text)
        except ValueError:
            continue
        found = recognized(row, columns, candidates)
        if found:
            yield position, row, found
