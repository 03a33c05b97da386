"""The plan of micro-batches: every row once an epoch, on all processes together, whatever the numbers are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract import reasons
from finetune_contract.documents import TrainingInputs
from finetune_stages.sdk import StageError
from finetune_stages.training.batches import BatchPlan
from finetune_stages.training.memory import micro_batch_size, rows_of_a_process

INPUTS = TrainingInputs("sft", "portable", 1, 16, 1000, 100, 1e-3)


def plans(rows: int, micro: int, accumulation: int, world: int, seed: int = 42) -> list[BatchPlan]:
    lengths = np.random.default_rng(seed).integers(2, 200, rows)
    return [BatchPlan(lengths, micro * accumulation * world, micro, world, rank, seed, filler=rows) for rank in range(world)]


numbers = st.integers(1, 6)


@given(rows=st.integers(1, 200), micro=numbers, accumulation=numbers, world=numbers)
def test_every_row_is_seen_once_an_epoch(rows, micro, accumulation, world):
    shares = plans(rows, micro, accumulation, world)
    for _epoch in range(2):
        batches = [list(share) for share in shares]
        seen = Counter(row for share in batches for batch in share for row in batch if row < rows)
        assert seen == Counter(range(rows))
        assert {len(share) for share in batches} == {len(shares[0])}  # all take part in every collective operation
        assert all(1 <= len(batch) <= micro for share in batches for batch in share)


@given(rows=st.integers(1, 200), micro=numbers, accumulation=numbers, world=numbers)
def test_the_trainer_counts_the_same_steps_as_the_plan(rows, micro, accumulation, world):
    plan = plans(rows, micro, accumulation, world)[0]
    # transformers' Trainer: full windows of accumulated batches, and one for what is left
    assert plan.steps == max(1, len(plan) // plan.accumulation + (len(plan) % plan.accumulation > 0))
    assert plan.tokens_after_steps(2)[-1] == 2 * plan.lengths.sum()
    assert len(plan.tokens_after_steps(2)) == 2 * plan.steps


def test_a_step_has_the_same_rows_however_many_processes_share_it():
    for one, two in zip(plans(50, 4, 4, 1)[0].epoch_rows(0), plans(50, 4, 2, 2)[1].epoch_rows(0), strict=True):
        assert np.array_equal(one, two)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(plans(100, 4, 4, 1, seed)[0].epoch_rows(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_rows_of_like_length_meet():
    lengths = np.array([10, 200] * 8)
    plan = BatchPlan(lengths, effective=16, micro=8, world=1, rank=0, seed=0, filler=16)
    assert [{int(lengths[row]) for row in batch} for batch in plan] == [{200}, {10}]


@pytest.mark.parametrize(
    ("world", "longest", "in_memory", "expected"),
    [
        (1, 50, None, 16),
        (1, 100, None, 8),
        (2, 100, None, 8),
        (4, 100, None, 4),
        (1, 500, None, 2),
        (1, 50, 120, 2),
        (1, 50, 1, 1),
    ],
)
def test_the_micro_batch_is_the_largest_that_divides_and_fits(world, longest, in_memory, expected):
    assert micro_batch_size(INPUTS, world, longest, in_memory) == expected


def test_the_users_micro_batch_is_taken():
    assert micro_batch_size(replace(INPUTS, micro_batch_size=4), 2, 10_000, 1) == 4


@pytest.mark.parametrize(
    ("changes", "world", "sentence"),
    [
        ({}, 3, "training.effectiveBatchSize: 16 is not divisible by 3 processes; use a multiple of 3"),
        ({"micro_batch_size": 5}, 1, "training.microBatchSize: 5 does not divide the 16 rows"),
        ({"micro_batch_size": 16}, 2, "training.microBatchSize: 16 does not divide the 8 rows"),
    ],
)
def test_numbers_that_do_not_divide_are_rejected(changes, world, sentence):
    with pytest.raises(StageError, match=sentence) as raised:
        rows_of_a_process(replace(INPUTS, **changes), world)
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE
