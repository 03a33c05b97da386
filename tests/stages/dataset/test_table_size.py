"""Parquet and Arrow files that are small and decode to what would fill the memory: real files, measured by a real process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from finetune_stages.dataset import table_size
from finetune_stages.dataset.table_size import TableSize, measure, table_kind
from finetune_stages.sdk import StageError

TOO_LARGE = "its content is larger than 1 GiB; write it with less compression, or as several files."


def rejected(path: Path) -> str:
    kind = table_kind(path.read_bytes()[:8])
    assert kind is not None
    with pytest.raises(StageError) as caught:
        measure(path, kind, "x")
    assert caught.value.reason.name == "DatasetUnreadable"
    return caught.value.message


def repeated(value: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def written(path: Path, batch: pa.RecordBatch, **options: str) -> Path:
    with pa.ipc.new_file(path, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(batch)
    return path


def test_a_dictionary_that_many_rows_refer_to(tmp_path: Path) -> None:
    """100 GiB of text in less than 1 kB: the footer states only the size of dictionary and indices."""
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(pa.table({"text": repeated("x" * (1 << 20), 100_000)}), path, compression="zstd")
    metadata = pa.parquet.read_metadata(path)
    assert (path.stat().st_size < 2000, metadata.row_group(0).total_byte_size < 2 << 20) == (True, True)
    assert rejected(path) == f"x: {TOO_LARGE}"


@pytest.mark.parametrize("nested", [False, True])
def test_a_dictionary_of_an_arrow_file(tmp_path: Path, nested: bool) -> None:
    values = repeated("x" * (1 << 20), 10_000)
    column = pa.ListArray.from_arrays(pa.array(range(10_001), pa.int32()), values) if nested else values
    assert rejected(written(tmp_path / "x.arrow", pa.record_batch([column], names=["a"]))) == f"x: {TOO_LARGE}"


def test_buffers_that_decompress_to_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = pa.array(["x" * (128 << 20)])
    path = written(tmp_path / "x.arrow", pa.record_batch([text] * 8, names=list("abcdefgh")), compression="zstd")
    assert path.stat().st_size < 1 << 20
    small = written(tmp_path / "small.arrow", pa.record_batch([text], names=["a"]), compression="zstd")
    monkeypatch.setattr(table_size, "_MEMORY", 1 << 30)
    assert (
        rejected(path) == "x: a part of it takes more than 1 GiB of memory; write it with fewer rows in a row group or a batch."
    )
    assert measure(small, "Arrow", "x").rows == 1, "the memory is enough for the process itself"


@pytest.mark.parametrize("kind", ["Parquet", "file", "stream"])
def test_usual_tables_are_measured(tmp_path: Path, kind: str) -> None:
    rows = pa.table({"messages": [[{"role": "user", "content": "a" * 5000}]] * 2000, "n": list(range(2000))})
    path = tmp_path / "x"
    if kind == "Parquet":
        pa.parquet.write_table(rows, path, row_group_size=500)
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, rows.schema) as writer:
            writer.write_table(rows)
    found = measure(path, "Parquet" if kind == "Parquet" else "Arrow", "x")
    assert found.rows == 2000
    assert 256 <= found.batch_rows <= 256 * 250
    assert found == TableSize(2000, found.batch_rows)


def test_a_damaged_table(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(pa.table({"a": ["x" * 100] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert rejected(path).startswith("x: is a damaged Parquet file (")


def test_what_is_no_table() -> None:
    assert [table_kind(head) for head in (b"", b"{}", b"PAR2", b"ARROW")] == [None] * 4
