"""The sample of training rows: what is learned is marked, and its size is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract.codec import decode, encode
from finetune_contract.result import SAMPLE_BYTES, SamplePart, SampleRow
from finetune_stages.tokenization.sample import cut
from rendering import Tokenization, family

QUESTION = {"role": "user", "content": "a?"}


def chat(answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [QUESTION, {"role": "assistant", "content": answer, **more}]}


def tokenized(tmp_path: Path, tiny_model: Path, *rows: Any, form: str = "messages") -> tuple[Tokenization, Any]:
    stage = Tokenization(tmp_path)
    stage.link_model(family(tiny_model, tmp_path / "model", "qwen3"))
    stage.write(rows, form=form)
    return stage, stage().outputs


def in_file(stage: Tokenization) -> list[SampleRow]:
    return [decode(SampleRow, row) for row in json.loads(stage.path("tokens/sample.json").read_bytes())]


def marked(row: SampleRow) -> str:
    return "".join(f"[[{part.text}]]" if part.learned else part.text or f"<{part.omitted}>" for part in row.parts)


def test_the_first_rows_are_shown_as_rendered_with_what_is_learned(tmp_path: Path, tiny_model: Path) -> None:
    two = {"messages": [*chat("one")["messages"], *chat("two", weight=0)["messages"], *chat("three ✓")["messages"]]}
    stage, outputs = tokenized(tmp_path, tiny_model, chat("b"), two, chat("c"), chat("d"))
    assert [row.row for row in outputs.sample] == [1, 2, 3]
    assert tuple(in_file(stage)) == outputs.sample
    assert [marked(row) for row in outputs.sample] == [stage.learned(number) for number in range(3)]
    assert "[[one<|im_end|>]]" in marked(outputs.sample[1])
    assert "two<|im_end|>" in marked(outputs.sample[1])
    assert "[[two" not in marked(outputs.sample[1])
    first = outputs.sample[0]
    assert (first.line, first.tokens > first.learned_tokens > 0) == (1, True)


def test_rows_that_are_left_out_are_not_in_the_sample(tmp_path: Path, tiny_model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(family(tiny_model, tmp_path / "model", "qwen3"))
    stage.write([chat("word " * 300), *(chat(letter) for letter in "abc")])
    assert [row.row for row in stage(max_seq_len=64, bad_rows_share=0.5).outputs.sample] == [2, 3, 4]


def test_documents_and_tokens_are_shown_as_the_tokenizer_reads_them(tmp_path: Path, tiny_model: Path) -> None:
    stage, outputs = tokenized(tmp_path, tiny_model, {"text": "A whole document."}, form="text")
    assert marked(outputs.sample[0]) == "A[[ whole document.<|im_end|>]]"
    tokens = [int(token) for token in np.load(stage.path("tokens/tokens.npy"))]
    labels = [-100] * (len(tokens) - 1) + tokens[-1:]
    _, outputs = tokenized(tmp_path / "other", tiny_model, {"input_ids": tokens, "labels": labels}, form="tokenised")
    assert marked(outputs.sample[0]) == "A whole document.[[<|im_end|>]]"


@pytest.mark.parametrize("text", ["x" * 25_000, "\U0001f600" * 25_000, "\x1b\x00" * 20_000, "a b " * 9000])
def test_the_sample_is_bounded(text: str, tmp_path: Path, tiny_model: Path) -> None:
    turns = [
        {"messages": chat(text[:2])["messages"] * 40},
        chat(text),
        {"messages": [{**QUESTION, "content": text}, chat("b")["messages"][1]]},
    ]
    stage = Tokenization(tmp_path)
    stage.link_model(family(tiny_model, tmp_path / "model", "qwen3"))
    stage.write(turns)
    outputs = stage(max_seq_len=10**6).outputs
    size = len(json.dumps(encode(outputs.sample), ensure_ascii=False, separators=(",", ":")).encode())
    assert 1024 < size <= SAMPLE_BYTES
    assert [sum(part.omitted or 0 for part in row.parts) > 0 for row in outputs.sample] == [True] * 3
    assert stage.path("tokens/sample.json").stat().st_size < 600_000
    # The beginning and the end of the file's rows are those of the short ones.
    for short, long in zip(outputs.sample, in_file(stage), strict=True):
        assert (long.parts[0].text or "").startswith(short.parts[0].text or "?")
        assert (long.parts[-1].text or "").endswith(short.parts[-1].text or "?")


def test_the_rows_of_a_run_that_shows_none_are_in_the_workspace_only(tmp_path: Path, tiny_model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(family(tiny_model, tmp_path / "model", "qwen3"))
    stage.write([chat(letter) for letter in "abcd"])
    assert stage(sample=False).outputs.sample == ()
    assert len(in_file(stage)) == 3


def test_values_of_secrets_are_not_in_the_sample(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    stage, outputs = tokenized(tmp_path, tiny_model, chat("use hf_abcdefgh"))
    assert "use ***<|im_end|>]]" in marked(outputs.sample[0])
    assert "hf_abcdefgh" not in stage.path("tokens/sample.json").read_text()


PARTS = (SamplePart("abcd", learned=False), SamplePart("efgh", learned=True))


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (8, PARTS),
        (7, (PARTS[0], SamplePart(omitted=1), SamplePart("fgh", learned=True))),
        (3, (SamplePart("ab", learned=False), SamplePart(omitted=5), SamplePart("h", learned=True))),
        (1, (SamplePart("a", learned=False), SamplePart(omitted=7))),
        (0, (SamplePart(omitted=8),)),
    ],
)
def test_a_row_is_cut_in_the_middle(most: int, expected: tuple[SamplePart, ...]) -> None:
    assert cut(PARTS, most) == expected
