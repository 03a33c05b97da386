"""Rows to arrays: what is kept, what is left out and counted, and what the other processes read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from finetune_contract import reasons
from finetune_stages.kit import StageError
from finetune_stages.training.chat import ChatRenderer
from finetune_stages.training.rows import IGNORED, Rows, read_rows, tokenise


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def prepared(tokenizer: Any, rows: list[Any], longest: int = 1000, seen: Any = lambda done: None) -> Rows:
    return tokenise(rows, tokenizer, ChatRenderer(tokenizer, False, "train.jsonl"), longest, seen)


def test_tokens_are_those_of_the_chat_template_and_labels_those_of_its_marks(tokenizer):
    chats = [chat("How is f called?", "f(x)"), chat("And g?", " g() "), chat("Ümläut?", "ä 🎉 ok")]
    rows = prepared(tokenizer, chats)
    for index, row in enumerate(chats):
        theirs = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )  # fmt: skip
        place = slice(rows.offsets[index], rows.offsets[index + 1])
        assert rows.tokens[place].tolist() == theirs["input_ids"]
        assert rows.learned[place].tolist() == [bool(flag) for flag in theirs["assistant_masks"]]
    assert np.array_equal(rows.labels == IGNORED, ~rows.learned)


def test_long_rows_and_rows_with_nothing_to_learn_are_left_out_and_counted(tokenizer):
    mute = {"messages": [{"role": "user", "content": "hello"}]}
    chats = [chat("a", "b"), chat("a", "word " * 300), mute, chat("c", "d")]
    rows = prepared(tokenizer, chats, longest=64)
    assert (len(rows), rows.too_long, rows.without_label, rows.dropped) == (2, 1, 1, 2)
    assert rows.lengths.max() <= 64


def test_a_row_of_exactly_the_longest_length_stays(tokenizer):
    length = int(prepared(tokenizer, [chat("a", "b c d e")]).lengths[0])
    assert len(prepared(tokenizer, [chat("a", "b c d e")], longest=length)) == 1


def test_no_row_left_says_why_and_what_to_change(tokenizer):
    with pytest.raises(StageError, match=r"None of the 2 rows .* 2 have more than 3 tokens \(training.maxSeqLen\)") as raised:
        prepared(tokenizer, [chat("a", "b"), chat("c", "d")], longest=3)
    assert raised.value.reason is reasons.NO_TRAINABLE_ROWS


def test_progress_is_told_on_the_way(tokenizer):
    seen: list[int] = []
    prepared(tokenizer, [chat(f"question {number}", "answer") for number in range(1200)], seen=seen.append)
    assert seen == [512, 1024, 1200]


def test_other_processes_read_what_the_first_one_made(tokenizer, tmp_path):
    rows = prepared(tokenizer, [chat("a", "b"), chat("c", "word " * 300)], longest=64)
    rows.save(tmp_path / "rows.npz")
    again = Rows.load(tmp_path / "rows.npz")
    for name in ("tokens", "learned", "offsets"):
        assert np.array_equal(getattr(again, name), getattr(rows, name))
    assert (again.too_long, again.without_label) == (1, 0)


@pytest.mark.parametrize("line", ["{", "[]", '{"messages": []}', '{"messages": [{"content": "x"}]}', '{"messages": "x"}', "null"])
def test_a_line_that_is_no_conversation_is_named(tmp_path, line):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(chat("a", "b")) + "\n" + line + "\n")
    with pytest.raises(StageError, match=r"Row 2 of train.jsonl") as raised:
        list(read_rows(path))
    assert raised.value.reason is reasons.BAD_ROW
