"""LoRA on weights of 4 and 8 bits, with the real bitsandbytes, which also computes without a GPU: slowly, but the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from finetune_contract.documents import LoraInputs
from finetune_stages.training.loading import load_model
from finetune_stages.training.lora import attach, prepare
from finetune_stages.training.quantization import configuration
from finetune_stages.training.tuning import Origin

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it

TOKENS = torch.arange(60).reshape(3, 20) % 50


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return found


@pytest.mark.parametrize(
    ("bits", "dora", "layer"), [("4bit", False, "Linear4bit"), ("4bit", True, "Linear4bit"), ("8bit", False, "Linear8bitLt")]
)
def test_an_adapter_learnt_on_quantized_weights_is_merged_into_the_exact_ones(tiny_model: Path, tmp_path, bits, dora, layer):
    model, unread = load_model(tiny_model, False, None, torch.float32, configuration(bits, bf16=False))
    assert unread == set()
    assert type(model.model.layers[0].mlp.up_proj).__name__ == layer
    assert type(model.lm_head).__name__ == "Linear"
    adapter = prepare(model, LoraInputs(4, 8, dora=dora), seed=7)
    adapter.model.train()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = adapter.model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1

    adapter.save_adapter(tmp_path / "adapter", Origin())
    exact, _ = load_model(tiny_model, False, None)
    merged, _ = load_model(tiny_model, False, None)
    merged.load_state_dict(dict(attach(exact, tmp_path / "adapter").plain_state()))
    served = PeftModel.from_pretrained(load_model(tiny_model, False, None)[0], tmp_path / "adapter")
    assert torch.allclose(logits(merged), logits(served), atol=1e-5)
    assert merged.model.layers[0].mlp.up_proj.weight.dtype == torch.float32
