"""Steps, tokens and memory of a training, estimated from the tokenized rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.estimate import estimate, memory_bytes
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
    found = estimate(training(effective_batch_size=effective, epochs=epochs), rows, 10 * rows, None)
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
    assert estimate(training(**changes), 1, 1, PARAMETERS)["memoryBytes"] == bytes_per_parameter * PARAMETERS


def test_the_estimate_is_in_status_before_training_starts_and_a_rerun_from_the_data_removes_it() -> None:
    world: World = world_at("training")
    status = run_of(world).status
    assert status["rows"]["tokensPerRow"] == {"p50": 95, "p90": 110, "p99": 118, "max": 120}
    assert set(status["estimate"]) == {"stepsPerEpoch", "steps", "tokens", "memoryBytes"}
    assert status["estimate"]["tokens"] == 900 * run_of(world).resolved.training.epochs
    world.settle()
    world.run["spec"]["rerun"] = {"id": "2", "from": "dataset"}
    go(world)
    assert "estimate" not in run_of(world).status
    assert "rows" not in run_of(world).status
