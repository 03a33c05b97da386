"""The size of a tokenizer, compared with what transformers makes of the same files."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from finetune_stages.model.tokens import read_tokenizer, vocabulary


def change(folder, **changes):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def older(folder):
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]", "bos_token": {"content": "<s>"}}))


def older_and_newer(folder):
    older(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<old>": 1024}))
    change(folder, added_tokens_decoder={"1024": {"content": "<new>", "special": True}})


@pytest.mark.parametrize(
    "files",
    [
        lambda folder: None,
        lambda folder: change(folder, pad_token="[PAD]", bos_token={"content": "<s>", "__type": "AddedToken"}),
        lambda folder: change(folder, extra_special_tokens=["<a>", "<b>"]),
        lambda folder: change(folder, additional_special_tokens=["<a>"]),
        lambda folder: change(folder, extra_special_tokens={"image_token": "<image>"}),
        lambda folder: change(
            folder, added_tokens_decoder={"1024": {"content": "<a>"}, "1025": {"content": "<b>"}}, eos_token="<b>"
        ),
        lambda folder: change(folder, added_tokens_decoder={"1": {"content": "<|im_start|>"}}),
        lambda folder: (folder / "added_tokens.json").write_text(json.dumps({"<old>": 1024})),
        older,
        older_and_newer,
    ],
)
def test_as_many_tokens_as_transformers_has(files, model):
    files(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokens = vocabulary(model, read_tokenizer(model, "m"), "m")
    assert max(tokens.values()) + 1 == len(tokenizer)
    assert tokens == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("vocab", "tokens"),
    [
        ([["a", -1.0], ["b", -2.0]], {"a": 0, "b": 1}),
        ({"a": 3, "b": "x"}, {"a": 3}),
        (None, {}),
    ],
)
def test_forms_of_a_vocabulary(vocab, tokens, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": [{"id": "x"}, 3]}))
    assert vocabulary(tmp_path, {}, "m") == tokens


def test_a_vocabulary_of_its_own_file(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    assert vocabulary(tmp_path, {"eos_token": "c"}, "m") == {"a": 0, "b": 1, "c": 2}


def test_a_vocabulary_that_is_no_json_is_not_counted(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a")
    assert vocabulary(tmp_path, {"eos_token": "c"}, "m") == {}
