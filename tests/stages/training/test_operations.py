"""Floating-point operations of a training step: the estimate before training and what PyTorch counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from finetune_operator.core.estimate import floating_point_operations

SHAPE = {
    "vocab_size": 2000, "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 8, "tie_word_embeddings": True,
}  # fmt: skip
ROWS, LENGTH = 2, 256


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning")  # the names in transformers 4
@pytest.mark.parametrize(
    ("adapters", "recomputed", "at_least"),
    [(False, False, 0.99), (True, False, 0.99), (False, True, 0.9)],  # checkpoints recompute the layers, not the output layer
)
def test_the_estimate_is_near_what_pytorch_counts(adapters: bool, recomputed: bool, at_least: float) -> None:
    from transformers import AutoModelForCausalLM, Qwen2Config

    # This attention computes all products and masks half of them. The estimate is for kernels that leave out the masked half.
    model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE), attn_implementation="eager")
    parameters = sum(one.numel() for one in model.parameters())
    if recomputed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if adapters:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear"))
    ids = torch.randint(0, SHAPE["vocab_size"], (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter:
        model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    training: Any = SimpleNamespace(epochs=1, lora=object() if adapters else None, gradient_checkpointing=recomputed)
    masked = 2
    attention = masked * ROWS * LENGTH**2 * SHAPE["num_hidden_layers"] * SHAPE["hidden_size"]
    estimated = floating_point_operations(training, ROWS * LENGTH, attention, parameters)
    assert at_least <= counter.get_total_flops() / estimated <= 1.01
