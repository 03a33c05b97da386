"""Near-duplicates: which rows are grouped, and that a group is on one side of the split."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_stages.dataset.near_duplicates import merged, near_duplicate_groups, signature, units
from finetune_stages.dataset.split import train_and_eval
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import open_rows
from preparation import prepared

WORDS = [f"{first}{second}" for first in "bcdfglmnprst" for second in ("ado", "elin", "ircum", "otar", "une", "yx")]


def sentence(seed: int, length: int = 30) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def chat(answer: str, system: str = "", **columns: Any) -> dict[str, Any]:
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, {"role": "user", "content": "Tell me."}, {"role": "assistant", "content": answer}], **columns}


def write(folder: Path, rows: list[Any]) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def groups(folder: Path, rows: list[Any], form: str = "messages") -> list[int]:
    opened = open_rows(write(folder, rows), "rows.jsonl", lambda _more: None)
    found: list[int] = near_duplicate_groups(opened, form, folder / "signatures.npy", lambda _more: None).tolist()
    assert not (folder / "signatures.npy").exists()
    return found


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "otherwise"
    return " ".join(words)


def test_rows_with_a_changed_word_other_case_or_other_spaces_are_in_one_group(tmp_path: Path) -> None:
    text = sentence(1)
    rows = [chat(text), chat(sentence(2)), chat(changed(text, 7)), chat(text.upper().replace(" ", "  \n")), chat(sentence(3))]
    assert groups(tmp_path, rows) == [0, 1, 0, 0, 2]


def test_tool_calls_with_other_arguments_are_in_other_groups(tmp_path: Path) -> None:
    def call(words: str) -> dict[str, Any]:
        function = {"name": "find", "arguments": {"words": words}}
        called = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
        return {"messages": [{"role": "user", "content": "Tell me."}, called]}

    assert groups(tmp_path, [call(sentence(1)), call(sentence(2)), call(changed(sentence(1), 7))]) == [0, 1, 0]


def test_groups_are_transitive(tmp_path: Path) -> None:
    texts = [sentence(1)]
    for place in range(0, 30, 2):
        texts.append(changed(texts[-1], place))
    assert groups(tmp_path, [chat(text) for text in texts]) == [0] * 16
    assert groups(tmp_path, [chat(texts[0]), chat(texts[-1])]) == [0, 1]


def test_system_messages_do_not_make_rows_alike(tmp_path: Path) -> None:
    assert groups(tmp_path, [chat(sentence(number), system=sentence(99, 300)) for number in range(5)]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("form", "rows", "expected"),
    [
        (
            "text",
            [{"text": sentence(1)}, {"text": ""}, {"text": changed(sentence(1), 3)}, {"text": "a"}, {"text": "A"}],
            [0, 1, 0, 2, 2],
        ),
        ("tokenised", [{"input_ids": [*range(40)]}, {"input_ids": [*range(100, 140)]}, {"input_ids": [*range(41)]}], [0, 1, 0]),
    ],
)
def test_documents_and_tokens(form: str, rows: list[Any], expected: list[int], tmp_path: Path) -> None:
    assert groups(tmp_path, rows, form) == expected


def test_hashes_are_the_same_in_every_process() -> None:
    assert signature(units({"text": "The same text."}, "text"))[:3].tolist() == [2899896632, 2899896632, 827228357]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 60))
def test_signatures_estimate_the_jaccard_similarity(seed: int, replaced: int) -> None:
    text = sentence(seed, 200)
    other = changed(text, *random.Random(seed).sample(range(200), replaced))
    one, two = (
        {tuple(values[place : place + 5]) for place in range(len(values) - 4)}
        for values in (units({"text": each}, "text").tolist() for each in (text, other))
    )
    exact = len(one & two) / len(one | two)
    estimate = (signature(units({"text": text}, "text")) == signature(units({"text": other}, "text"))).mean()
    assert abs(estimate - exact) < 0.3  # five standard errors of 64 hashes


def test_groupings_are_merged() -> None:
    labels, others = np.array([0, 1, 0, 2, 3, 3]), np.array([0, 1, 2, 2, 3, 4])
    assert merged(labels, others).tolist() == [0, 1, 0, 0, 2, 2]


@pytest.mark.parametrize("seed", [42, 7])
def test_no_group_is_on_both_sides(seed: int, tmp_path: Path) -> None:
    rows = [chat(changed(sentence(number % 40), number // 40), id=number % 40, topic=number % 10) for number in range(120)]
    source = write(tmp_path, rows)
    finished, train, held_out = prepared(tmp_path, source, near_duplicates="KeepTogether", seed=seed)
    assert {row["id"] for row in train} & {row["id"] for row in held_out} == set()
    assert (len(train), len(held_out)) == (108, 12)
    assert (finished.outputs.near_duplicate_groups, finished.outputs.near_duplicate_rows) == (40, 120)
    assert "; 120 near-duplicate rows in 40 groups, each on one side of the split" in finished.message
    options = {"split_by": "grouped", "split_field": "topic", "near_duplicates": "KeepTogether", "seed": seed}
    _, train, held_out = prepared(tmp_path, source, **options)
    assert {row["topic"] for row in train} & {row["topic"] for row in held_out} == set()


def test_without_near_duplicates_the_rows_are_upstreams(tmp_path: Path) -> None:
    rows = [chat(sentence(number), id=number) for number in range(50)]
    expected = [part.tolist() for part in train_and_eval(50, 0.9, 42)]
    _, *ignored = prepared(tmp_path, write(tmp_path, rows))
    finished, *kept = prepared(tmp_path, write(tmp_path, rows), near_duplicates="KeepTogether")
    assert [[row["id"] for row in part] for part in kept] == [[row["id"] for row in part] for part in ignored] == expected
    assert (finished.outputs.near_duplicate_groups, finished.outputs.near_duplicate_rows) == (0, 0)
    whole, *_ = prepared(tmp_path, write(tmp_path, rows), near_duplicates="KeepTogether", train_split=1.0)
    assert whole.outputs.near_duplicate_groups is None


def test_groups_that_are_too_large_are_reported(tmp_path: Path) -> None:
    same = [chat(changed(sentence(0, 60), place)) for place in range(40)]
    with pytest.raises(StageError) as raised:
        prepared(tmp_path, write(tmp_path, same), near_duplicates="KeepTogether")
    assert raised.value.reason.name == "TooFewRows"
    assert raised.value.message == (
        "dataset.nearDuplicates: all rows are near-duplicates of each other, so that none can be held out; use more varied rows, or set it"
        " to Ignore."
    )
    finished, _, held_out = prepared(
        tmp_path, write(tmp_path, [*same, chat(sentence(5))]), near_duplicates="KeepTogether", train_split=0.5
    )
    assert len(held_out) == 1
    assert [warning.partition(": ")[2] for warning in finished.warnings] == [
        "dataset.nearDuplicates: 1 rows are held out and not 20, because near-duplicates stay together; the largest group has 40 rows."
    ]
