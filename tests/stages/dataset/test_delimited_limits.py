"""Rows of CSV that would fill the memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from finetune_stages.dataset import delimited_rows as module
from finetune_stages.dataset.delimited_rows import delimited_rows
from finetune_stages.sdk import StageError


def rejected(folder: Path, content: bytes) -> str:
    (folder / "x.csv").write_bytes(content)
    with pytest.raises(StageError) as caught:
        delimited_rows(folder / "x.csv", "x.csv", ",", folder / "rows", lambda _more: None)
    assert caught.value.reason.name == "DatasetUnreadable"
    return caught.value.message


@pytest.mark.parametrize("row", [b"a" * (3 << 20), b'"' + b"a\n" * (2 << 20) + b'"', b",".join([b"a" * 1000] * 3000)])
def test_a_row_that_is_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: bytes) -> None:
    monkeypatch.setattr(module, "LARGEST_ROW", 2 << 20)
    found = rejected(tmp_path, b"text\nb\n" + row + b"\nc\n")
    assert found == "x.csv: the row at line 3 is not a row of CSV (it has more than 2 MiB); correct it."


def test_rows_that_are_long_together_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "LARGEST_ROW", 1000)
    (tmp_path / "x.csv").write_bytes(b"text\n" + (b"a" * 900 + b"\n") * 20)
    rows, _ = delimited_rows(tmp_path / "x.csv", "x.csv", ",", tmp_path / "rows", lambda _more: None)
    assert len(rows) == 20


def test_a_long_line_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "LARGEST_ROW", 1 << 20)
    assert (
        rejected(tmp_path, b"text\n" + b"\xff" * (2 << 20))
        == "x.csv: line 2 has more than 1 MiB, and the text is not UTF-8; save it as UTF-8."
    )


def test_a_header_with_many_columns_takes_linear_time(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b",".join(b"c%d" % number for number in range(100_000)) + b"\n")
    started = time.process_time()
    delimited_rows(tmp_path / "x.csv", "x.csv", ",", tmp_path / "rows", lambda _more: None)
    assert time.process_time() - started < 10  # it was minutes
