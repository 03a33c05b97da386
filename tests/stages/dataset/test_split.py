"""Subset and split: the rows that the OpenShift AI pipelines draw, for every seed."""

from __future__ import annotations

import random

import pytest
from datasets import Dataset

from finetune_contract.documents import DatasetInputs
from finetune_stages.dataset.split import subset, train_and_eval
from finetune_stages.sdk import StageError


@pytest.mark.parametrize(("total", "count", "rows"), [(10, 3, [1, 0, 4]), (1000, 5, [654, 114, 25, 759, 281])])
def test_a_random_subset_has_upstreams_rows_in_upstreams_order(total, count, rows):
    assert list(subset(total, DatasetInputs("x", subset=count))) == rows
    random.seed(42)  # as upstream writes it
    assert rows == random.sample(range(total), count)


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        (DatasetInputs("x", subset=3, subset_mode="first"), [0, 1, 2]),
        (DatasetInputs("x", subset=3, subset_mode="first", seed=7), [0, 1, 2]),
        (DatasetInputs("x"), [0, 1, 2, 3, 4]),
        (DatasetInputs("x", subset=5), [0, 1, 2, 3, 4]),
        (DatasetInputs("x", subset=99), [0, 1, 2, 3, 4]),
    ],
)
def test_other_subsets_keep_the_order(inputs, rows):
    assert list(subset(5, inputs)) == rows


@pytest.mark.parametrize("seed", [0, 42, 2**31 - 1])
@pytest.mark.parametrize("ratio", [0.9, 0.8, 0.7, 0.5, 0.1, 0.99, 1 / 3, 0.95])
@pytest.mark.parametrize("total", [2, 3, 5, 10, 11, 100, 1003])
def test_the_split_is_the_librarys(total, ratio, seed):
    rows = Dataset.from_dict({"row": range(total)})
    try:
        expected = rows.train_test_split(test_size=1 - ratio, seed=seed)
    except ValueError:
        with pytest.raises(StageError) as caught:
            train_and_eval(total, ratio, seed)
        assert caught.value.reason.name == "TooFewRows"
        return
    train, held_out = train_and_eval(total, ratio, seed)
    assert train.tolist() == expected["train"]["row"][:]
    assert held_out.tolist() == expected["test"]["row"][:]


@pytest.mark.parametrize(("total", "sizes"), [(100, (90, 10)), (10, (9, 1)), (11, (9, 2)), (2, (1, 1))])
def test_sizes_at_the_default_ratio(total, sizes):
    train, held_out = train_and_eval(total, 0.9, 42)
    assert (len(train), len(held_out)) == sizes
    assert sorted([*train, *held_out]) == list(range(total))


def test_ratio_one_holds_nothing_out():
    train, held_out = train_and_eval(3, 1.0, 42)
    assert (train.tolist(), held_out.tolist()) == ([0, 1, 2], [])


def test_one_row_cannot_be_split():
    with pytest.raises(StageError, match="the only row is held out"):
        train_and_eval(1, 0.9, 42)
