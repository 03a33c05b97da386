"""Recognition and conversion of formats as functions, and what the stage reports of a conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.documents import DatasetInputs
from finetune_contract.row_formats import RowFields, RowFormat
from finetune_stages.dataset.formats.columns import FORMATS, Columns
from finetune_stages.dataset.formats.conversion import converted
from finetune_stages.dataset.formats.raw_columns import raw_columns, row_text
from finetune_stages.dataset.formats.recognition import recognized
from stages.conftest import StagePrograms

HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
DEFAULTS = Columns(RowFields())


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": []}, "messages"),
        ({"messages": 5}, "messages"),
        ({"messages": [{"role": "user", "from": "x"}]}, "messages"),
        ({"messages": [HUMAN]}, "conversations"),
        ({"messages": " [...]"}, "conversations"),
        ({"messages": "text"}, None),
        ({"messages": None, "conversations": []}, "conversations"),
        ({"conversation": []}, "conversations"),
        ({"conversations": None, "text": "t"}, "text"),
        ({"instruction": "i", "output": None}, "alpaca"),
        ({"instruction": "i"}, None),
        ({"prompt": "p", "completion": "c", "text": "t"}, "prompt-completion"),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, None),
        ({"input_ids": [1], "text": "t"}, "tokenised"),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_recognition(row: Any, expected: RowFormat | None) -> None:
    assert recognized(row, DEFAULTS, FORMATS) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (RowFields(), FORMATS),
        (RowFields(system="s"), ("messages", "conversations", "alpaca", "prompt-completion")),
        (RowFields(messages="m", tools="t"), ("messages", "conversations")),
        (RowFields(input="i"), ("alpaca",)),
        (RowFields(text="t"), ("text",)),
        (RowFields(labels="l"), ("tokenised",)),
        (RowFields(text="t", labels="l"), ()),
    ],
)
def test_formats_that_read_some_fields(fields: RowFields, expected: tuple[RowFormat, ...]) -> None:
    assert Columns(fields).candidates() == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_columns_keep_their_text(row: dict[str, Any], indent: int | None, escaped: bool) -> None:
    text = json.dumps(row, indent=indent, ensure_ascii=escaped)
    assert {column: json.loads(raw) for column, raw in raw_columns(text).items()} == row
    assert all(raw in text for raw in raw_columns(text).values())
    assert json.loads(row_text({"new column": [1]}, text, row)) == {"new column": [1], **row}


@given(st.lists(st.tuples(st.sampled_from(["user", "system"]), st.text()), max_size=4))
def test_conversations_are_those_of_trl(turns: list[tuple[str, str]]) -> None:
    from trl import maybe_convert_to_chatml

    messages = [{"from": role, "value": value} for role, value in [*turns, ("assistant", "a")]]
    theirs = maybe_convert_to_chatml({"conversations": [dict(message) for message in messages]})
    assert converted({"conversations": messages}, "conversations", DEFAULTS).values == theirs


def test_the_stage_reports_what_it_converted(run_stage_program: StagePrograms, tmp_path: Path) -> None:
    rows = [
        {"conversations": [HUMAN, GPT], "id": number, **({"lang": "en"} if number % 2 else {"lang": ""})} for number in range(10)
    ]
    source = tmp_path / "chat.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = run_stage_program("dataset", DatasetInputs(str(source)))
    assert first.code == 0, first.errors
    assert first.result.message == (
        f"9 training rows and 1 held-out rows of 10 in {source}; format conversations, read from column conversations; roles gpt as assistant, human as"
        " user; ignored columns (rows) id (10), lang (5)"
    )
    held_out = tmp_path / "eval.jsonl"
    held_out.write_text(json.dumps({"instruction": "i", "output": "o"}))
    other = run_stage_program("dataset", DatasetInputs(str(source), eval_uri=str(held_out)))
    assert other.result.message.endswith("id (10), lang (5); format alpaca, read from columns instruction, output")
    declared = run_stage_program("dataset", DatasetInputs(str(source), format="conversations"))
    assert declared.result.message == first.result.message
    assert declared.result.outputs["digest"] == first.result.outputs["digest"]
