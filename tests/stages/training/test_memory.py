"""A training that cannot fit is rejected with numbers before anything is loaded; one that may fit is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_contract import reasons
from finetune_contract.documents import CheckpointInputs, LoraInputs, OsftInputs, TrainingInputs
from finetune_operator.core.estimate import memory_bytes
from finetune_stages.sdk import StageError
from finetune_stages.training import memory
from finetune_stages.training.memory import (
    adapter_parameters,
    frozen_in_16_bits,
    require_memory,
    require_room,
    tokens_that_fit,
    weights_and_optimizer,
)
from finetune_stages.training.pretrained import Pretrained, Tensor
from finetune_stages.training.processes import Processes

SFT = TrainingInputs("sft", "portable", 3, 16, 1000, 100, 1e-3)
OSFT = replace(SFT, algorithm="osft", osft=OsftInputs(0.25, (), "targets"))
LORA = replace(SFT, algorithm="lora", lora=LoraInputs(rank=8))
MIB = 1 << 20


def base(layers: int = 1, width: int = 1000) -> Pretrained:
    tensors = {
        f"model.layers.{layer}.self_attn.q_proj.weight": Tensor("BF16", (width, width), 0, 2 * width * width)
        for layer in range(layers)
    }
    return Pretrained(
        Path(),
        {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 1000},
        {**tensors, "norm": Tensor("BF16", (width,), 0, 2 * width)},
    )


def test_sft_needs_sixteen_bytes_a_parameter():
    assert weights_and_optimizer(base(), SFT) == 16 * 1_001_000


def test_osft_needs_the_weight_and_its_trained_factors():
    factors = 250 * 2001
    assert weights_and_optimizer(base(), OSFT) == 4 * 1_001_000 + 20 * factors
    everything = replace(OSFT, osft=OsftInputs(0.25, (), "all"))
    assert weights_and_optimizer(base(), everything) == weights_and_optimizer(base(), OSFT) + 12 * 1000


def test_lora_needs_the_frozen_weights_and_the_trained_adapters():
    adapters = 16 * 8 * 2000
    assert adapter_parameters(base(), LORA) == 8 * 2000
    assert weights_and_optimizer(base(), LORA) == 4 * 1_001_000 + adapters
    assert weights_and_optimizer(base(), LORA, bf16=True) == 2 * 1_001_000 + adapters
    four_bits = replace(LORA, lora=LoraInputs(rank=8, quantization="4bit"))
    assert weights_and_optimizer(base(), four_bits, bf16=True) == 500_000 + 2 * 1000 + adapters
    nothing = replace(LORA, lora=LoraInputs(target_modules=("k_proj",)))
    assert weights_and_optimizer(base(), nothing) == 4 * 1_001_000


@pytest.mark.parametrize(
    ("inputs", "bf16", "at_most"),
    [
        (SFT, False, 1.0),
        (OSFT, False, 1.02),
        (replace(OSFT, osft=OsftInputs(0.25, (), "all")), False, 1.2),
        (LORA, False, 1.0),
        (LORA, True, 1.0),
    ],
)
def test_the_estimate_before_training_is_near_that_of_the_program(inputs: TrainingInputs, bf16: bool, at_most: float) -> None:
    spec: Any = SimpleNamespace(osft=inputs.osft, lora=inputs.lora, gpus_per_worker=int(bf16))
    exact = weights_and_optimizer(base(), inputs, bf16) - (adapter_parameters(base(), inputs) * 16 if inputs.lora else 0)
    assert 1.0 <= memory_bytes(spec, base().parameters) / exact <= at_most


def test_only_what_is_frozen_and_has_16_bits_already_stays_so():
    assert frozen_in_16_bits(base(), LORA, bf16=True)
    assert not frozen_in_16_bits(base(), LORA, bf16=False)
    assert not frozen_in_16_bits(base(), SFT, bf16=True)


@pytest.mark.parametrize(
    ("inputs", "advice"),
    [
        (SFT, "or algorithm lora"),
        (LORA, "or training.lora.quantization: 4bit"),
        (replace(LORA, lora=LoraInputs(quantization="4bit")), "or a smaller training.lora.rank"),
    ],
)
def test_a_full_gpu_is_reported_with_what_takes_less(monkeypatch, inputs, advice):
    monkeypatch.setenv("FINETUNE_GPUS", "1")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (MIB // 2, MIB))
    with pytest.raises(StageError, match=rf"the GPU has 512 KiB left for each; .*{advice}") as raised:
        require_memory(base(), inputs, Processes())
    assert raised.value.reason is reasons.GPU_OUT_OF_MEMORY


def test_merging_into_unquantized_weights_needs_ordinary_memory(monkeypatch):
    monkeypatch.setenv("FINETUNE_GPUS", "1")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (64 * MIB, 64 * MIB))
    monkeypatch.setattr(memory, "available_memory", lambda: MIB)
    assert require_memory(base(), LORA, Processes()) is not None
    with pytest.raises(
        StageError, match=r"the merge of the adapter needs 3.82 MiB for copies of the unquantized weights, and this pod has 1 MiB"
    ) as raised:
        require_memory(base(), replace(LORA, lora=LoraInputs(quantization="8bit")), Processes())
    assert raised.value.reason is reasons.HOST_OUT_OF_MEMORY


def test_too_little_memory_is_reported_in_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 30 * MIB)
    assert require_memory(base(), SFT, Processes()) == 30 * MIB - 16 * 1_001_000
    with pytest.raises(
        StageError, match=r"1,001,000 parameters need 15.3 MiB in each of 2 processes, and this pod has 15 MiB left"
    ) as raised:
        require_memory(base(), SFT, Processes(per_node=2))
    assert raised.value.reason is reasons.HOST_OUT_OF_MEMORY


def test_memory_that_is_unknown_rejects_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert require_memory(base(), SFT, Processes()) is None
    assert tokens_that_fit(base(), SFT, None, builds_logits=True) is None


@pytest.mark.parametrize(
    ("checkpoints", "models"), [(CheckpointInputs(), 1), (CheckpointInputs(True), 5), (CheckpointInputs(True, 1), 3)]
)
def test_room_for_the_models_is_asked_first(monkeypatch, tmp_path, checkpoints, models):
    inputs = replace(SFT, checkpoints=checkpoints)
    need = models * base().size + 64 * MIB
    monkeypatch.setattr(memory, "free_room", lambda directory: need)
    require_room(tmp_path, base(), inputs)
    monkeypatch.setattr(memory, "free_room", lambda directory: need - 1)
    with pytest.raises(StageError, match=r"storage.size: the volume has .* free, and .*; raise it") as raised:
        require_room(tmp_path, base(), inputs)
    assert raised.value.reason is reasons.WORKSPACE_FULL


def test_fewer_tokens_fit_where_logits_are_kept_and_more_with_checkpointing():
    left = 64 * MIB
    plain = tokens_that_fit(base(), SFT, left, builds_logits=False)
    with_logits = tokens_that_fit(base(), SFT, left, builds_logits=True)
    thrifty = tokens_that_fit(base(), replace(SFT, gradient_checkpointing=True), left, builds_logits=False)
    assert with_logits < plain < thrifty
