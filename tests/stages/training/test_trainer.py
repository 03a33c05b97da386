"""The two trainers: with the logits of the labels, and with TRL's fused loss, which GPUs use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from finetune_contract.documents import LoraInputs, TrainingInputs
from finetune_stages.training import lora, trainers
from finetune_stages.training.batches import BatchPlan, PackedPlan
from finetune_stages.training.callback import TrainingCallback
from finetune_stages.training.fused import FusedRowTrainer
from finetune_stages.training.packing import PackedRows
from finetune_stages.training.rows import Rows
from finetune_stages.training.trainer import RowTrainer, collator, dataset_of, router_weight
from finetune_stages.training.trainers import trainer_class

INPUTS = TrainingInputs("sft", "portable", 2, 4, 4096, 256, 1e-2)
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it


def rows_of(count: int, vocabulary: int) -> Rows:
    """Rows of 5 to 20 random tokens, of which the second half is learned."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, 20, count)
    learned = np.concatenate([np.arange(length) >= length // 2 for length in lengths])
    tokens = random.integers(3, vocabulary, int(lengths.sum())).astype(np.int32)
    return Rows(tokens, learned, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def losses(kind: type[RowTrainer], model: Any, tokenizer: Any, folder: Path, packed: bool = False) -> list[float]:
    """Train, and return the loss of each step."""
    torch.manual_seed(0)
    rows = rows_of(10, 300)
    place = (1, 0, 42, len(rows))
    plan = PackedPlan(rows.lengths, 4, 1, *place, 40, 2) if packed else BatchPlan(rows.lengths, 4, 2, *place)
    callback = TrainingCallback(lambda _: None, plan.tokens_after_steps(2), 2)
    made = kind(
        plan, PackedRows(rows) if packed else None, model=model, args=kind.settings(INPUTS, plan, folder),
        train_dataset=dataset_of(rows), data_collator=collator(tokenizer, plan), processing_class=tokenizer, callbacks=[callback],
    )  # fmt: skip
    made.train()
    assert made.samples == 20
    return [point.loss for point in callback.history]


@pytest.mark.parametrize("algorithm", ["sft", "lora", "lora-packed"])
def test_both_compute_the_same_losses(tiny_model, tmp_path, algorithm):
    found = []
    for kind in (RowTrainer, FusedRowTrainer):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        tuned = model if algorithm == "sft" else lora.prepare(model, LoraInputs(4, 8), 0).model
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        found.append(losses(kind, tuned, tokenizer, tmp_path / kind.__name__, packed=algorithm == "lora-packed"))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0][-1] < found[0][0]


def test_both_add_the_loss_of_the_routers(tiny_model, tmp_path):
    found = []
    for kind in (RowTrainer, FusedRowTrainer):
        torch.manual_seed(0)
        config = MixtralConfig(
            vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
            num_local_experts=4, router_aux_loss_coef=0.5,
        )  # fmt: skip
        found.append(
            losses(kind, MixtralForCausalLM(config), AutoTokenizer.from_pretrained(tiny_model), tmp_path / kind.__name__)
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0][0] > np.log(512) + 0.4  # the routers' loss is at least its weight


def test_the_weight_of_the_routers_loss_is_the_configurations(tiny_model):
    assert router_weight(MixtralConfig(router_aux_loss_coef=0.25)) == 0.25
    assert router_weight(AutoModelForCausalLM.from_pretrained(tiny_model).config) == 0


@pytest.mark.parametrize(
    ("gpu", "fused", "expected"), [(True, True, FusedRowTrainer), (True, False, RowTrainer), (False, True, RowTrainer)]
)
def test_the_fused_loss_is_for_gpus_and_new_versions(monkeypatch, gpu, fused, expected):
    monkeypatch.setattr(trainers, "on_gpu", lambda: gpu)
    monkeypatch.setattr(trainers, "has_fused_loss", lambda: fused)
    assert trainer_class() is expected
    assert trainer_class().builds_logits == (expected is RowTrainer)
