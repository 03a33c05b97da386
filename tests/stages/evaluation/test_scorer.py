"""The model that is measured is the one in the files: the scorer computes what a plain load computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from families import FAMILIES, edit_config, write_model
from finetune_contract.documents import EvaluationInputs
from finetune_stages.evaluation.scorer import load_scorer
from finetune_stages.sdk import StageError

IDS = torch.tensor([[5, 17, 300, 42, 5, 900, 11]])


def plain_logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def scorer_logits(folder: Path) -> torch.Tensor:
    return load_scorer(folder, EvaluationInputs("final"), lambda: None)._model_call(IDS)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_scorer_computes_what_the_files_hold(family, tiny_model, tmp_path):
    tied = write_model(tmp_path / "tied", family, tiny_model, tied=True)
    own = write_model(tmp_path / "own", family, tiny_model, tied=False)
    expected = {folder: plain_logits(folder) for folder in (tied, own)}
    assert not torch.allclose(expected[tied], expected[own], atol=0.1)
    for folder in (tied, own):
        assert torch.equal(scorer_logits(folder), expected[folder])
    edit_config(own, tie_word_embeddings=True)  # the files still have an output layer of their own
    assert torch.equal(scorer_logits(own), expected[own])


def test_missing_weights_are_never_measured(tiny_model, tmp_path):
    folder = write_model(tmp_path / "model", "qwen2", tiny_model, tied=True)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(StageError, match=r"model: the files have no weights for lm_head.weight; use a model for text") as raised:
        scorer_logits(folder)
    assert raised.value.reason.name == "ModelIncomplete"


def test_an_output_layer_that_equals_the_embeddings_is_one_matrix(tiny_model, tmp_path):
    folder = write_model(tmp_path / "model", "qwen2", tiny_model, tied=True)
    expected = plain_logits(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    scorer = load_scorer(folder, EvaluationInputs("final"), lambda: None)
    assert torch.equal(scorer._model_call(IDS), expected)
    assert scorer.model.lm_head.weight.data_ptr() == scorer.model.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("name", ["backend", "subfolder", "revision", "gguf_file", "gptqmodel", "delta"])
def test_no_argument_exchanges_the_model(name, tiny_model):
    with pytest.raises(StageError, match=f"evaluation.modelArgs: {name} cannot be set") as raised:
        load_scorer(tiny_model, EvaluationInputs("final", model_args={name: "x"}), lambda: None)
    assert raised.value.reason.name == "BadEvaluationValue"


@pytest.mark.parametrize("family", ["gpt2", "mpt", "opt"])
def test_windows_end_where_the_positions_end(family, tiny_model, tmp_path):
    folder = write_model(tmp_path / "model", family, tiny_model, tied=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 4096}))
    scorer = load_scorer(folder, EvaluationInputs("final", model_args={"max_length": 4096}), lambda: None)
    assert scorer.max_length == 128
    assert scorer._model_call(torch.full((1, 128), 7)).shape == (1, 128, scorer.model.config.vocab_size)
