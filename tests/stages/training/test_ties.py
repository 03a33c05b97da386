"""A base model whose configuration and files disagree about its output layer: training takes the files, and writes what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from families import edit_config, write_model
from finetune_contract.documents import LoraInputs
from finetune_stages.training.checkpoint import write_model as publish
from finetune_stages.training.loading import load_model
from finetune_stages.training.lora import attach, prepare
from finetune_stages.training.pretrained import Pretrained
from finetune_stages.training.tuning import Origin, Whole

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
IDS = torch.arange(40).reshape(2, 20)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def opened(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def contradictory(folder: Path, family: str, tokenizer: Path, said: bool | None) -> Path:
    write_model(folder, family, tokenizer, tied=False)
    edit_config(folder, tie_word_embeddings=said)
    return folder


def train(model) -> None:
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model.train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("family", "said"), [("qwen2", True), ("gpt2", True), ("gpt2", None), ("gemma2", True), ("gemma2", None), ("qwen2", False)]
)
def test_the_published_model_states_what_its_files_hold(family, said, tiny_model, tmp_path):
    base = contradictory(tmp_path / "base", family, tiny_model, said)
    before = load_file(base / "model.safetensors")["lm_head.weight"]
    model, _ = load_model(base, False, None)
    train(model)
    publish(tmp_path / "tuned", model, Whole(model).plain_state(), Pretrained.open(base))
    assert json.loads((tmp_path / "tuned/config.json").read_text())["tie_word_embeddings"] is False
    head = load_file(tmp_path / "tuned/model.safetensors")["lm_head.weight"]
    assert 0 < float((head - before).abs().max()) < 1
    assert torch.equal(logits(opened(tmp_path / "tuned")), logits(model))


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_a_merged_adapter_and_the_adapter_on_its_base_agree(family, tiny_model, tmp_path):
    base = contradictory(tmp_path / "base", family, tiny_model, True)
    model, _ = load_model(base, False, None)
    tuning = prepare(model, LoraInputs(4, 8), seed=7)
    for _ in range(2):
        train(tuning.model)
    expected = logits(tuning.model)
    assert float((expected - logits(opened(base))).abs().max()) > 0.01
    publish(tmp_path / "tuned", tuning.plain, tuning.plain_state(), Pretrained.open(base))
    tuning.save_adapter(tmp_path / "adapter", Origin())
    assert json.loads((tmp_path / "tuned/config.json").read_text())["tie_word_embeddings"] is False
    assert torch.allclose(logits(opened(tmp_path / "tuned")), expected, atol=1e-3)
    assert torch.allclose(logits(attach(opened(base), tmp_path / "adapter").model), expected, atol=1e-3)


def test_shared_embeddings_stay_shared(tiny_model, tmp_path):
    base = write_model(tmp_path / "base", "qwen2", tiny_model, tied=True)
    model, _ = load_model(base, False, None)
    publish(tmp_path / "tuned", model, Whole(model).plain_state(), Pretrained.open(base))
    assert json.loads((tmp_path / "tuned/config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(tmp_path / "tuned/model.safetensors")


def test_a_multimodal_configuration_states_it_on_both_levels(tmp_path):
    base = Pretrained(tmp_path, {"text_config": {"tie_word_embeddings": True, "hidden_size": 4}}, {})
    (tmp_path / "tuned").mkdir()
    base.copy_companions(tmp_path / "tuned", own_head=True)
    config = json.loads((tmp_path / "tuned/config.json").read_text())
    assert config == {
        "text_config": {"tie_word_embeddings": False, "hidden_size": 4},
        "tie_word_embeddings": False,
        "use_cache": True,
    }
