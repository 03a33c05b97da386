"""Steps, tokens, memory, operations and time of GPUs of a training, estimated from the tokenized rows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_contract import strict_json
from finetune_contract.codec import decode, encode
from finetune_contract.result import TokenizationOutputs
from finetune_operator.core.estimate import estimate, floating_point_operations, gpu_time, memory_bytes
from finetune_operator.core.resolved_spec import Lora, Osft, Training
from unit.core.passes import go, run_of, world_at
from world import World

PARAMETERS = 1_000_000


def training(**changes: Any) -> Training:
    return replace(run_of(world_at("training")).resolved.training, **{"osft": None, "lora": None, **changes})


def osft(ratio: float, trainable: Any) -> Osft:
    return Osft(unfreeze_rank_ratio=ratio, target_patterns=(), trainable=trainable, memory_efficient_init=False)


def lora(quantization: Any) -> Lora:
    return Lora(16, 32, 0.0, ("all-linear",), rslora=False, dora=False, quantization=quantization, packing=False)


@pytest.mark.parametrize(
    ("rows", "effective", "epochs", "expected"),
    [(128, 128, 1, (1, 1)), (129, 128, 3, (2, 6)), (1, 128, 2, (1, 2)), (1000, 8, 2, (125, 250))],
)
def test_the_last_step_of_an_epoch_takes_the_rest(rows: int, effective: int, epochs: int, expected: tuple[int, int]) -> None:
    found = estimate(training(effective_batch_size=effective, epochs=epochs), rows, 10 * rows, 5, None)
    assert found == {"stepsPerEpoch": expected[0], "steps": expected[1], "tokens": 10 * rows * epochs}


@pytest.mark.parametrize(
    ("changes", "bytes_per_parameter"),
    [
        ({"algorithm": "sft"}, 16),
        ({"algorithm": "osft", "osft": osft(0.25, "all")}, 16),
        ({"algorithm": "osft", "osft": osft(0.25, "targets")}, 14),
        ({"algorithm": "osft", "osft": osft(0.5, "all")}, 24),
        ({"algorithm": "lora", "lora": lora("none"), "gpus_per_worker": 0}, 4),
        ({"algorithm": "lora", "lora": lora("none"), "gpus_per_worker": 1}, 2),
        ({"algorithm": "lora", "lora": lora("8bit"), "gpus_per_worker": 1}, 1),
        ({"algorithm": "lora", "lora": lora("4bit"), "gpus_per_worker": 1}, 0.5),
    ],
)
def test_memory_depends_on_the_algorithm(changes: dict[str, Any], bytes_per_parameter: float) -> None:
    assert memory_bytes(training(**changes), PARAMETERS) == bytes_per_parameter * PARAMETERS
    assert estimate(training(**changes), 1, 1, 0, PARAMETERS)["memoryBytes"] == bytes_per_parameter * PARAMETERS


# 1,000 rows of 500 tokens, 24 layers of 2,048 dimensions: 10^9 parameters x 500,000 tokens x 2 operations is 1 petaFLOP, and the attention
# 1,000 x 500^2 x 24 x 2,048 x 2 operations is 24.576 teraFLOP, both of one forward pass. Two epochs.
ATTENTION = 1_000 * 500**2 * 24 * 2_048


@pytest.mark.parametrize(
    ("changes", "recomputed", "teraflop"),
    [
        ({"algorithm": "sft"}, False, 2 * (3 * 1_000 + 3 * 24.576)),
        ({"algorithm": "sft"}, True, 2 * (4 * 1_000 + 4 * 24.576)),
        ({"algorithm": "osft", "osft": osft(0.25, "all")}, False, 2 * (3 * 1_000 + 3 * 24.576)),
        ({"algorithm": "lora", "lora": lora("none")}, False, 2 * (2 * 1_000 + 3 * 24.576)),
        ({"algorithm": "lora", "lora": lora("4bit")}, True, 2 * (3 * 1_000 + 4 * 24.576)),
    ],
)
def test_operations_depend_on_the_gradients_of_weights_and_on_recomputation(
    changes: dict[str, Any], recomputed: bool, teraflop: float
) -> None:
    one = training(epochs=2, gradient_checkpointing=recomputed, gpus_per_worker=1, **changes)
    assert floating_point_operations(one, 500_000, ATTENTION, 10**9) == round(teraflop * 10**12)
    found = estimate(one, 1_000, 500_000, ATTENTION, 10**9)
    assert found["computeTeraflop"] == round(teraflop + 0.5)
    assert found["gpuTime"] == gpu_time(round(teraflop * 10**12))
    assert "gpuTime" not in estimate(replace(one, gpus_per_worker=0), 1_000, 500_000, ATTENTION, 10**9)


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        (1, "about 1 GPU minute on H100, 1 on A100, 1 on L40S, at 40 % of the peak"),
        # 6 x 1.5 * 10^9 parameters x 10^8 tokens; 0.4 x 989 teraFLOP per second take 2,275 s.
        (6 * 15 * 10**8 * 10**8, "about 38 GPU minutes on H100, 121 on A100, 104 on L40S, at 40 % of the peak"),
        (6 * 7 * 10**9 * 10**8, "about 2.9 GPU hours on H100, 9.3 on A100, 8.1 on L40S, at 40 % of the peak"),
        (6 * 7 * 10**9 * 10**11, "about 2,949 GPU hours on H100, 9,348 on A100, 8,057 on L40S, at 40 % of the peak"),
    ],
)
def test_the_time_of_gpus_is_that_of_their_data_sheets_at_the_stated_share(operations: int, words: str) -> None:
    assert gpu_time(operations) == words


def test_the_attention_of_a_large_model_on_long_rows_fits_a_result() -> None:
    attention = 100_000.0 * 131_072**2 * 126 * 16_384  # 405B parameters
    outputs = encode(
        TokenizationOutputs(
            digest="0" * 64, passages_digest="0" * 64, rows=1, tokens=1, learned_tokens=1, longest=1, attention=attention
        )
    )
    found = decode(TokenizationOutputs, strict_json.loads(json.dumps(outputs), 1 << 12), "outputs")
    assert found.attention == attention > 2**63


def test_the_estimate_is_in_status_before_training_starts_and_a_rerun_from_the_data_removes_it() -> None:
    world: World = world_at("training")
    status = run_of(world).status
    assert status["rows"]["tokensPerRow"] == {"p50": 95, "p90": 110, "p99": 118, "max": 120}
    assert set(status["estimate"]) == {"stepsPerEpoch", "steps", "tokens", "memoryBytes", "computeTeraflop"}
    assert status["estimate"]["tokens"] == 900 * run_of(world).resolved.training.epochs
    world.settle()
    world.run["spec"]["rerun"] = {"id": "2", "from": "dataset"}
    go(world)
    assert "estimate" not in run_of(world).status
    assert "rows" not in run_of(world).status
