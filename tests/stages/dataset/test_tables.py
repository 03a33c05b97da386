"""Columns of Parquet: text in bytes and JSON text are read exactly, and what is not text is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from finetune_stages.sdk import StageError
from preparation import prepared

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"n": 12345678901234567890, "x": 0.1}}}]


def table(folder: Path, **columns: Any) -> Path:
    write_table(pa.table(columns), folder / "r.parquet")
    return folder / "r.parquet"


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_json_text_of_messages_is_read_exactly(column: str, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"n": 12345678901234567890, "x": 0.1, "none": None}}}
    messages = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "é\u2028"}, ANSWER]
    source = table(tmp_path, **{column: [json.dumps(messages), json.dumps([USER, ANSWER], indent=1)]})
    _, rows, _ = prepared(tmp_path, source, train_split=1.0)
    assert rows == [{"messages": messages}, {"messages": [USER, ANSWER]}]


def test_json_text_of_tools_is_kept(tmp_path: Path) -> None:
    _, rows, _ = prepared(
        tmp_path, table(tmp_path, messages=[[USER, ANSWER]] * 2, tools=[json.dumps(TOOLS), ""]), train_split=1.0
    )
    assert [row["tools"] for row in rows] == [json.dumps(TOOLS), ""]


def test_bytes_of_text_are_text_and_a_column_of_other_bytes_is_omitted(tmp_path: Path) -> None:
    hashes = [{"sha": [b"\xff", b"a"]}, {"sha": [b"b"]}]
    finished, rows, _ = prepared(
        tmp_path,
        table(tmp_path, text=["é".encode(), b"b"], id=[b"1", b"2"], raw=[b"\xff\xfe", b"a"], hash=hashes),
        train_split=1.0,
    )
    assert rows == [{"text": "é", "id": "1"}, {"text": "b", "id": "2"}]
    assert [warning.partition(": ")[2] for warning in finished.warnings] == [
        "column raw, hash has bytes that are not UTF-8 text; omitted."
    ]


def strings(*values: bytes) -> pa.Array:
    """A column of strings that need not be UTF-8, as other libraries write it."""
    ends = [0, *(sum(map(len, values[: number + 1])) for number in range(len(values)))]
    offsets = pa.py_buffer(b"".join(end.to_bytes(4, "little") for end in ends))
    return pa.Array.from_buffers(pa.string(), len(values), [None, offsets, pa.py_buffer(b"".join(values))])


def test_strings_that_are_not_utf8(tmp_path: Path) -> None:
    nested = pa.array([["x"], ["é", None]])
    columns = {"prompt": strings(b"a\xff", "é".encode()), "completion": ["c", "d"], "tags": nested}
    with pytest.raises(StageError) as caught:
        prepared(tmp_path, table(tmp_path, **columns), train_split=1.0)
    assert (caught.value.reason.name, caught.value.message.partition(": ")[2]) == (
        "BadRow",
        "row 1 has bytes in column prompt that are not UTF-8 text (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.",
    )
    finished, rows, _ = prepared(
        tmp_path, table(tmp_path, **columns, other=strings(b"\xff", b"o")), train_split=1.0, bad_rows="Drop", bad_rows_share=0.5
    )
    assert [(row["messages"][0]["content"], row["tags"]) for row in rows] == [("é", ["é", None])]
    assert [warning.partition(": ")[2] for warning in finished.warnings] == [
        "column other has bytes that are not UTF-8 text; omitted."
    ]


def test_columns_of_types_that_are_not_read_are_omitted(tmp_path: Path) -> None:
    pairs = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))
    finished, rows, _ = prepared(tmp_path, table(tmp_path, text=["a"], meta=pairs), train_split=1.0)
    assert rows == [{"text": "a"}]
    assert [warning.partition(": ")[2] for warning in finished.warnings] == [
        "this release does not read the type of column meta (map<string, int64>); omitted."
    ]


@pytest.mark.parametrize("metadata", [b"garbage", b'{"info": {"features": {"text": {"_type": "NewerType"}}}}'])
def test_metadata_that_the_library_does_not_know(tmp_path: Path, metadata: bytes) -> None:
    source = pa.table({"text": ["a"]}).replace_schema_metadata({"huggingface": metadata})
    write_table(source, tmp_path / "r.parquet")
    assert prepared(tmp_path, tmp_path / "r.parquet", train_split=1.0)[1] == [{"text": "a"}]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_that_cannot_be_omitted(tmp_path: Path, kind: str) -> None:
    pairs = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))
    for columns, words in (
        (pa.table({"messages": pairs}), "column messages has type map<string, int64>, which this release does not read; write it as text, or remove it."),
        (pa.table([["a"], ["b"]], ["text", "text"]), "has two columns 'text'; rename one of them."),
    ):  # fmt: skip
        source = tmp_path / f"r.{kind}"
        if kind == "parquet":
            write_table(columns, source)
        else:
            with pa.ipc.new_file(str(source), columns.schema) as writer:
                writer.write_table(columns)
        with pytest.raises(StageError) as caught:
            prepared(tmp_path, source, train_split=1.0)
        assert (caught.value.reason.name, caught.value.message) == ("DatasetUnreadable", f"{source}: {words}")


def test_a_part_without_rows_is_read(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write_table(pa.table({"text": ["a", "b"]}), tmp_path / "parts/0.parquet")
    write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "parts/1.parquet")
    _, rows, _ = prepared(tmp_path, tmp_path / "parts", train_split=1.0)
    assert rows == [{"text": "a"}, {"text": "b"}]


def test_columns_without_an_effect_are_counted_for_rows_with_messages(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER, {**ANSWER, "content": str(number)}], "id": number, "note": "" if number else "x"}
        for number in range(5)
    ]
    rows += [
        {"messages": [USER, {**ANSWER, "weight": 1}], "id": 9, "unmask": False, "score": float("nan")},
        {"messages": [], "id": 1},
    ]
    source = tmp_path / "r.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finished, kept, _ = prepared(tmp_path, source, train_split=1.0, bad_rows="Drop", bad_rows_share=0.5)
    assert len(kept) == 6
    assert finished.message.endswith("; ignored columns (rows) id (6), note (1), score (1)")
