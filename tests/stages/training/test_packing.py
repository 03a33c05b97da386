"""Several rows in one sequence: the same numbers as alone, the same steps as without, and no model that mixes them up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MambaConfig

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, TrainingInputs
from finetune_stages.sdk import StageError
from finetune_stages.training.batches import PackedPlan, pack
from finetune_stages.training.memory import packed_sequences, rows_of_a_process
from finetune_stages.training.packing import PackedCollator, PackedRows, require_separation, rows_with_labels
from finetune_stages.training.rows import IGNORED, Rows

LORA = TrainingInputs("lora", "portable", 1, 16, 1000, 100, 1e-3, lora=LoraInputs(packing=True))


def rows_of(lengths: list[int], seed: int = 0) -> Rows:
    """Rows of these lengths with random tokens, of which the second half is learned."""
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    learned = np.concatenate([np.arange(length) >= max(1, length // 2) for length in lengths])
    return Rows(random.integers(3, 500, offsets[-1]).astype(np.int32), learned, offsets)


def collated(rows: Rows, sequences: list[list[int]]) -> dict[str, torch.Tensor]:
    packed = PackedRows(rows)
    return PackedCollator(0)([packed[rows] for rows in sequences])


def summed_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), batch["labels"][:, 1:], reduction="sum", ignore_index=IGNORED
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_compute_what_they_compute_alone(tiny_model: Path, attention: str):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation=attention)
    rows = rows_of([9, 14, 5, 2, 11])
    batch = collated(rows, [[1, 0, 3], [4, 2]])  # 25 and 16 tokens: the second sequence is padded
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for sequence, members in enumerate([[1, 0, 3], [4, 2]]):
            place = 0
            for row in members:
                tokens = torch.from_numpy(rows.tokens[rows.offsets[row] : rows.offsets[row + 1]].astype(np.int64))[None]
                alone = model(input_ids=tokens).logits[0]
                assert (logits[sequence, place : place + len(alone)] - alone).abs().max() < 1e-5
                place += len(alone)


def test_loss_and_gradients_are_those_of_the_single_rows(tiny_model: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = rows_of([9, 14, 5, 2, 11])
    whole = summed_loss(model, collated(rows, [[1, 0, 3], [4, 2]]))
    whole.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    single = [summed_loss(model, collated(rows, [[row]])) for row in range(5)]
    sum(single).backward()
    assert whole.item() == pytest.approx(sum(loss.item() for loss in single), rel=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4), name


def test_rows_are_counted_and_fillers_and_padding_are_not():
    rows = rows_of([9, 14, 5])
    assert rows_with_labels(collated(rows, [[1, 0], [2]])) == 3
    assert rows_with_labels(collated(rows, [[3]])) == 0
    assert rows_with_labels(collated(rows, [[1], [3]])) == 1


numbers = st.integers(1, 5)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), numbers, numbers, st.integers(1, 24))
def test_every_row_is_seen_once_an_epoch_in_full_steps(lengths, micro, world, effective):
    tokens = np.array(lengths)
    plans = [PackedPlan(tokens, effective, micro, world, rank, 42, len(tokens), 100, 2) for rank in range(world)]
    for epoch in range(2):
        batches = [list(plan) for plan in plans]
        assert {len(share) for share in batches} == {len(plans[0])} == {plans[0].steps * plans[0].accumulation}
        sequences = [sequence for share in batches for batch in share for sequence in batch if sequence != [len(tokens)]]
        assert Counter(row for sequence in sequences for row in sequence) == Counter(range(len(tokens)))
        assert all(tokens[sequence].sum() <= 100 for sequence in sequences)
        assert all(1 <= len(batch) <= plans[0].micro <= micro for share in batches for batch in share)
        for step, wanted in enumerate(plans[0].epoch_rows(epoch)):
            window = slice(step * plans[0].accumulation, (step + 1) * plans[0].accumulation)
            seen = [row for share in batches for batch in share[window] for sequence in batch for row in sequence]
            assert sorted(row for row in seen if row < len(tokens)) == sorted(wanted)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_first_fit_decreasing_wastes_little_and_is_the_same_every_time(lengths):
    tokens = np.array(lengths)
    sequences = pack(np.arange(len(tokens)), tokens, 100)
    assert sequences == pack(np.arange(len(tokens)), tokens, 100)
    filled = [tokens[sequence].sum() for sequence in sequences]
    assert filled == sorted(filled, reverse=True)
    assert len(filled) == 1 or sum(filled[-2:]) > 100  # no two of them would fit into one


def test_sequences_fit_the_memory_and_the_longest_row():
    assert packed_sequences(LORA, 50, None) == (100, 10)
    assert packed_sequences(LORA, 50, 250) == (100, 2)
    assert packed_sequences(LORA, 50, 60) == (60, 1)
    assert packed_sequences(LORA, 50, 10) == (50, 1)
    assert rows_of_a_process(TrainingInputs("lora", "portable", 1, 16, 9, 9, 1.0, 5, lora=LORA.lora), 1) == 16


def test_a_model_without_attention_is_rejected():
    shape = MambaConfig(vocab_size=512, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(StageError, match=r"training.lora.packing: this model does not support it, .*; set it to false") as raised:
        require_separation(AutoModelForCausalLM.from_config(shape), rows_of([6, 8]))
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE


@pytest.mark.parametrize("lengths", [[6, 8, 9], [7], [2, 2]])
def test_the_tiny_model_keeps_rows_apart(tiny_model: Path, lengths):
    require_separation(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), rows_of(lengths))


def test_training_packed_is_training(new_bench, inputs):
    """The same rows in the same steps: the same losses as without."""
    runs = []
    for packing in (False, True):
        bench = new_bench()
        ended = bench.train(inputs(algorithm="lora", lora=LoraInputs(4, 8, packing=packing)))
        assert ended.code == 0, ended.errors
        runs.append((ended.result, load_file(bench.path("final_model/model.safetensors"))))
    (plain, before), (packed, after) = runs
    assert packed.outputs["samplesSeen"] == plain.outputs["samplesSeen"] == 100
    assert packed.metrics["tokens"] == plain.metrics["tokens"]
    assert [point.loss for point in packed.history] == pytest.approx([point.loss for point in plain.history], rel=1e-4)
    assert all(torch.allclose(after[name], before[name], atol=1e-3) for name in before)
