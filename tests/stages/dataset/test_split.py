"""Subset and split: the rows that the OpenShift AI pipelines draw, for every seed."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.documents import DatasetInputs
from finetune_stages.dataset.split import grouped, stratified, subset, train_and_eval
from finetune_stages.dataset.split_field import split_by_field, split_labels
from finetune_stages.sdk import StageError
from finetune_stages.sources.json_lines import JsonLines, open_rows


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


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5000), st.floats(0, 1, exclude_min=True, exclude_max=True) | st.integers(1, 99).map(lambda percent: percent / 100),
    st.integers(0, 2**31 - 1) | st.just(42),
)  # fmt: skip
def test_the_split_of_any_size_is_the_librarys(total: int, ratio: float, seed: int) -> None:
    try:
        expected = Dataset.from_dict({"row": range(total)}).train_test_split(test_size=1 - ratio, seed=seed)
    except ValueError:
        with pytest.raises(StageError, match=r"dataset\.trainSplit: with "):
            train_and_eval(total, ratio, seed)
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


labels_and_ratios = st.tuples(
    st.lists(st.integers(0, 6), min_size=2, max_size=200),
    st.integers(1, 99).map(lambda percent: percent / 100),
    st.integers(0, 99),
)


def numbered(labels: list[int]) -> np.ndarray:
    """Number the labels in the order of their first rows."""
    known: dict[int, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels])


@settings(deadline=None, max_examples=100)
@given(labels_and_ratios)
def test_a_stratified_split_has_equal_shares(given_values: tuple[list[int], float, int]) -> None:
    labels, ratio, seed = given_values
    total, wanted = len(labels), math.ceil((1 - ratio) * len(labels))
    if wanted >= total:
        with pytest.raises(StageError, match="rows are held out"):
            stratified(numbered(labels), ratio, seed)
        return
    train, held_out = stratified(numbered(labels), ratio, seed)
    assert sorted([*train, *held_out]) == list(range(total))
    assert len(held_out) == wanted
    drawn, sizes = Counter(labels[position] for position in held_out), Counter(labels)
    assert all(abs(drawn[label] - wanted * size / total) < 1 for label, size in sizes.items())
    order = np.random.default_rng(seed).permutation(total).tolist()
    assert train.tolist() == [position for position in order if position not in set(held_out.tolist())]
    assert all(
        a.tolist() == b.tolist() for a, b in zip((train, held_out), stratified(numbered(labels), ratio, seed), strict=True)
    )


@settings(deadline=None, max_examples=100)
@given(labels_and_ratios)
def test_a_grouped_split_keeps_groups_together(given_values: tuple[list[int], float, int]) -> None:
    labels, ratio, seed = given_values
    total, wanted = len(labels), math.ceil((1 - ratio) * len(labels))
    sizes = Counter(labels)
    if len(sizes) == 1 or wanted >= total:
        with pytest.raises(StageError) as caught:
            grouped(numbered(labels), ratio, seed)
        assert caught.value.reason.name == "TooFewRows"
        return
    train, held_out = grouped(numbered(labels), ratio, seed)
    assert sorted([*train, *held_out]) == list(range(total))
    assert not {labels[position] for position in train} & {labels[position] for position in held_out}
    assert 0 < len(held_out) <= max(wanted, min(sizes.values()))
    assert len(held_out) == min(sizes.values()) or wanted - len(held_out) < min(sizes[labels[position]] for position in train)


def test_a_ratio_of_one_holds_nothing_out_of_groups() -> None:
    for split in (stratified, grouped):
        train, held_out = split(np.array([0, 0, 1]), 1.0, 42)
        assert (train.tolist(), held_out.tolist()) == ([0, 1, 2], [])


def rows_with(folder: Path, *columns: dict) -> JsonLines:
    (folder / "rows").write_text("".join(json.dumps(each) + "\n" for each in columns))
    return open_rows(folder / "rows", "rows", lambda _count: None)


def split(rows: JsonLines, mode: str, **inputs):
    return split_by_field(rows, "rows", "topic", DatasetInputs("x", split_by=mode, split_field="topic", **inputs))


def test_values_are_compared_by_type_and_text(tmp_path: Path) -> None:
    values = ["a", 1, "\u0061", 1.0, True, "1", "a", 1]
    rows = rows_with(
        tmp_path, *({"n": float("nan") if number == 3 else 0, "topic": value} for number, value in enumerate(values))
    )
    labels, first = split_labels(rows, "rows", "topic")
    assert labels.tolist() == [0, 1, 0, 2, 3, 4, 0, 1]
    assert first.tolist() == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([{"topic": "a"}, {"other": 1}],
         ("rows: row 2 (line 2) has no string, number or boolean in column topic (1 of 2 rows); correct the data, or set dataset.splitField"
          " to another column.")),
        ([{"topic": "a"}, {"topic": ["a"]}, {"topic": {}}],
         "rows: row 2 (line 2), row 3 (line 3) have no string, number or boolean in column topic (2 of 3 rows);"),
    ],
)  # fmt: skip
def test_rows_without_a_value_to_split_by(tmp_path: Path, columns: list, message: str) -> None:
    with pytest.raises(StageError) as caught:
        split(rows_with(tmp_path, *columns), "grouped")
    assert caught.value.reason.name == "BadRow"
    assert caught.value.message.startswith(message)


def test_no_row_has_a_value_to_split_by(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        split(rows_with(tmp_path, {"topic": None, "lang": "en", "tags": []}, {"topic": None}), "grouped")
    assert (caught.value.reason.name, caught.value.message) == (
        "ColumnNotFound",
        "dataset.splitField: no row of rows has a string, number or boolean in column topic; columns that have one are: lang.",
    )
    with pytest.raises(StageError, match=r"in column topic; set dataset\.splitBy to random\."):
        split(rows_with(tmp_path, {"topic": None}), "grouped")


def test_what_a_split_cannot_do_is_reported(tmp_path: Path) -> None:
    rare = rows_with(tmp_path, *({"topic": "often"} for _ in range(27)), *({"topic": name} for name in ("x", "y", "z")))
    (_, held_out), notes = split(rare, "stratified", train_split=0.9)
    assert len(held_out) == 3
    assert notes == (
        'dataset.splitField: 3 of 4 values of topic have too few rows for a held-out one ("x", "y", "z").',
    )  # fmt: skip
    large = rows_with(tmp_path, *({"topic": number % 2} for number in range(20)))
    (train, held_out), notes = split(large, "grouped", train_split=0.9)
    assert (len(train), len(held_out)) == (10, 10)
    assert notes == (
        "dataset.splitField: 10 rows are held out and not 2, because rows with the same topic stay together; the largest group has 10 rows.",
    )  # fmt: skip
    assert split(large, "grouped", train_split=1.0)[1] == ()
    with pytest.raises(StageError, match=r"dataset\.splitField: all rows have the same value, so that none can be held out"):
        split(rows_with(tmp_path, *({"topic": "a"} for _ in range(20))), "grouped")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_no_value(tmp_path, value):
    (tmp_path / "rows.jsonl").write_text(f'{{"g": 1}}\n{{"g": {value}}}\n')
    rows = open_rows(tmp_path / "rows.jsonl", "rows.jsonl", lambda _more: None)
    with pytest.raises(StageError) as caught:
        split_labels(rows, "rows.jsonl", "g")
    assert caught.value.message.startswith(
        "rows.jsonl: row 2 (line 2) has no string, number or boolean in column g (1 of 2 rows)"
    )
