"""What is reported about rows that are trained on: repeated rows, held-out rows among them, empty turns, and rows that are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset.check import BadRow, check_rows
from finetune_stages.dataset.prepare import prepare
from finetune_stages.sdk import Context, Finished, StageError
from finetune_stages.sources.json_lines import open_rows

RUN = RunInfo("demo", "team-a", "0123456789abcdef")


def row(question: str, answer: str = "a", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


@pytest.fixture
def prepared(tmp_path: Path):
    """Run the stage's work on files with these rows; names of files in warnings are shortened."""

    def run(rows: list[Any], held_out: list[Any] | None = None, **inputs: Any) -> Finished:
        files = {"uri": rows, "eval_uri": held_out}
        for name, some in files.items():
            (tmp_path / name).write_text("".join(f"{json.dumps(each)}\n" for each in some or ()))
        uris = {name: str(tmp_path / name) for name, some in files.items() if some is not None}
        document = StageDocument(CONTRACT_VERSION, "dataset", RUN, encode(DatasetInputs(**uris, **inputs)))
        context = Context(document, tmp_path / "workspace", Attempt(1, 1), "0" * 64)
        context.path(context.layout.root).mkdir(parents=True, exist_ok=True)
        context.become_current()
        return prepare(context)

    return run


def warnings(finished: Finished) -> list[str]:
    return [text.partition(": ")[2] if text.startswith("/") else text for text in finished.warnings]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("1"), row("2"), row("1", "b"), row("1", id=7), row("2")],
         ["2 of 5 rows repeat an earlier row; the first is row 4 (line 4), which repeats row 1 (line 1)."]),
        ([row("1"), row("1")], ["1 of 2 rows repeats an earlier row; the first is row 2 (line 2), which repeats row 1 (line 1)."]),
        ([row("1"), {"messages": [{"role": "user", "content": [{"type": "text", "text": "1"}]}, row("1")["messages"][1]]}],
         ["1 of 2 rows repeats an earlier row; the first is row 2 (line 2), which repeats row 1 (line 1)."]),
        ([row("1"), row("2"), row("")], ["1 row (row 3 (line 3)): a message of the user is empty."]),
        ([row(" "), row("\n", id=1), {**row("2"), "messages": [*row("")["messages"], {"role": "user", "content": [], "name": "x"}]}],
         ["3 rows (row 1 (line 1), row 2 (line 2), row 3 (line 3)): a message of the user is empty."]),
        ([row("1"), row("2"), {"messages": [{"role": "system", "content": ""}, *row("3")["messages"]]}], []),
    ],
)  # fmt: skip
def test_rows_that_are_reported_and_kept(prepared, rows, expected):
    finished = prepared(rows, train_split=1.0)
    assert finished.outputs.train_rows == len(rows)
    assert warnings(finished) == expected


def test_held_out_rows_that_are_trained_on(prepared):
    rows = [row(str(number)) for number in range(20)]
    order = np.random.default_rng(42).permutation(20).tolist()
    held_out, trained = order[0], order[-1]
    rows[trained] = rows[held_out]
    finished = prepared(rows, train_split=0.5)
    assert (finished.outputs.train_rows, finished.outputs.eval_rows) == (10, 10)
    assert warnings(finished)[1:] == [
        f"1 of 10 held-out rows is also trained on (row {held_out + 1} (line {held_out + 1})); remove repeated rows."
    ]
    apart = [row(str(number)) for number in range(20)]
    assert warnings(prepared(apart, train_split=0.5)) == []


def test_rows_of_a_source_of_held_out_rows_that_are_trained_on(prepared):
    finished = prepared([row("1"), row("2"), row("3"), row("4")], [row("5"), row("4", id=1), row("3"), row("2"), row("1")])
    assert warnings(finished) == [
        "4 of 5 held-out rows are also trained on (row 2 (line 2), row 3 (line 3), row 4 (line 4), ...); remove them from one of the files."
    ]


def test_rows_that_are_left_out_are_recorded(prepared, tmp_path):
    bad = {"messages": []}
    finished = prepared(
        [row(str(number)) if number % 2 else bad for number in range(30)], [row("x"), "text"], bad_rows="Drop", bad_rows_share=0.5
    )
    recorded = [
        json.loads(line) for line in (tmp_path / "workspace" / RUN.layout.datasets / "bad_rows.jsonl").read_text().splitlines()
    ]
    assert recorded == [
        *(
            {"source": "uri", "row": number, "line": number, "fault": "has an empty list of messages"}
            for number in range(1, 30, 2)
        ),
        {"source": "evalUri", "row": 2, "line": 2, "fault": "is a string, not an object with messages"},
    ]
    assert finished.outputs.dropped_rows == 16
    assert finished.outputs.first_dropped == tuple(f"uri row {number} (line {number})" for number in range(1, 20, 2))
    assert prepared([row("1"), row("2")], train_split=1.0).outputs.first_dropped is None
    assert not (tmp_path / "workspace" / RUN.layout.datasets / "bad_rows.jsonl").exists()


def test_no_more_than_a_bounded_number_of_rows_is_recorded(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_stages.dataset.check.RECORDED", 3)
    finished = prepared([*[{"messages": []}] * 5, row("1")], train_split=1.0, bad_rows="Drop", bad_rows_share=0.9)
    assert finished.outputs.dropped_rows == 5
    assert len((tmp_path / "workspace" / RUN.layout.datasets / "bad_rows.jsonl").read_text().splitlines()) == 3


def test_a_split_by_a_column(prepared, tmp_path):
    rows = [row(str(number), topic=number // 10) for number in range(100)]
    prepared(rows, split_by="grouped", split_field="topic")
    text = (tmp_path / "workspace" / RUN.layout.datasets / "eval.jsonl").read_text()
    assert len({json.loads(line)["topic"] for line in text.splitlines()}) == 1
    assert text.count("\n") == 10
    prepared(rows, split_by="stratified", split_field="topic")
    text = (tmp_path / "workspace" / RUN.layout.datasets / "eval.jsonl").read_text()
    assert sorted(json.loads(line)["topic"] for line in text.splitlines()) == list(range(10))
    with pytest.raises(StageError, match=r"inputs\.splitField: is missing, and splitBy is grouped"):
        prepared(rows, split_by="grouped")
    with pytest.raises(
        StageError, match=r"no row of .*uri has a string, number or boolean in column other; columns that have one are: topic\."
    ):
        prepared(rows, split_by="grouped", split_field="other")


def test_rows_of_another_form_are_compared_as_a_whole(tmp_path):
    (tmp_path / "rows").write_text(
        "".join(f"{json.dumps(each)}\n" for each in ({"text": "a", "id": 1}, {"id": 1, "text": "a"}, {"text": ""}))
    )
    rows = open_rows(tmp_path / "rows", "rows", lambda _count: None)
    inputs = DatasetInputs("x", bad_rows="Drop", bad_rows_share=0.5)
    checked = check_rows(rows, "rows", inputs, lambda _count: None, lambda row, _text: None if row["text"] else "has no text")
    assert (len(checked.rows), checked.bad) == (2, (BadRow(3, 3, "has no text"),))
    assert checked.notes == (
        "1 of 2 rows repeats an earlier row; the first is row 2 (line 2), which repeats row 1 (line 1).",
    )  # fmt: skip
