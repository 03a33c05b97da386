"""How many rows may be left out, and the messages about them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.documents import TokenizationInputs
from finetune_stages.sdk import Seal, StageError
from finetune_stages.sources.row_faults import FaultyRows
from finetune_stages.tokenization.limits import Limits, RowCounts, Unused, bad_in_training


def rejected(count: int) -> FaultyRows:
    faulty = FaultyRows()
    for number in range(1, count + 1):
        faulty.add(number - 1, f"row {number}", "is odd")
    return faulty


def limits(share: float = 0.1, positions: int | None = None, bad: float = 0.0, **inputs: Any) -> Limits:
    return Limits(TokenizationInputs(max_seq_len=64, bad_rows_share=share, **inputs), positions, bad)


@pytest.mark.parametrize(
    ("counts", "kept", "limit", "words"),
    [
        (RowCounts("r", 10, too_long=1, longest=90), 9, limits(), None),
        (RowCounts("r", 10, too_long=2, longest=90), 8, limits(), "r: 2 of 10 training rows are left out (2 have more than 64 tokens"),
        (RowCounts("r", 10, too_long=2, longest=90), 8, limits(), "raise training.maxSeqLen (to 90 for all rows that the model can read), or raise dataset.badRows.share to 0.2."),
        (RowCounts("r", 10, too_long=2, longest=90), 8, limits(positions=80), "(to 80 for all rows that the model can read)"),
        (RowCounts("r", 10, too_long=2, longest=90), 8, limits(positions=64), "shorten the rows, or raise dataset.badRows.share to 0.2."),
        (RowCounts("r", 10, too_long=2, longest=90, nothing=1), 7, limits(share=0.25), "training.maxSeqLen (to 90 for all rows that the model can read) and correct the others, or"),
        (RowCounts("r", 10, nothing=2), 8, limits(), "(2 have nothing to learn), more than dataset.badRows.share 0.1 allows; correct the rows, or"),
        (RowCounts("r", 9, nothing=1), 8, limits(bad=1.0), "r: 2 of 10 training rows are left out (1 has nothing to learn, 1 was bad in stage dataset)"),
        (RowCounts("r", 90), 90, limits(bad=10.0), None),
        (RowCounts("r", 3, rejected=rejected(3)), 0, limits(share=1.0), "r: none of 3 rows can be trained on (3 are rejected (row 1 is odd)); correct the rows."),
    ],
)  # fmt: skip
def test_one_limit_for_all_rows_that_are_left_out(counts: RowCounts, kept: int, limit: Limits, words: str | None) -> None:
    assert counts.total - counts.left_out == kept
    if words is None:
        limit.require_enough(counts)
        return
    with pytest.raises(StageError) as raised:
        limit.require_enough(counts)
    assert words in raised.value.message
    assert raised.value.reason.name == ("TooManyRowsLeftOut" if kept else "NoTrainableRows")


def counts(total: int, bad: int = 0, **more: Any) -> RowCounts:
    return RowCounts("r", total, rejected(bad), **more)


@pytest.mark.parametrize(
    ("train", "held_out", "limit", "message"),
    [
        (counts(20, 4), counts(5, 1), limits(),
         ("r: row 1 is odd (5 of 25 rows are rejected: row 1, row 2, row 3, ...); correct them, or set dataset.badRows.policy to Drop and"
         " dataset.badRows.share to 0.2.")),
        (counts(20), counts(5, 1), limits(), "r: row 1 is odd (1 of 25 rows is rejected); correct it, or set dataset.badRows.policy to Drop."),
        (counts(20, 1, too_long=5), counts(0), limits(share=0.2),
         "r: row 1 is odd (1 of 20 rows is rejected); correct it, or set dataset.badRows.policy to Drop and dataset.badRows.share to 0.3."),
        (counts(18, 1), counts(0), limits(bad=2.0),
         "r: row 1 is odd (1 of 18 rows is rejected); correct it, or set dataset.badRows.policy to Drop and dataset.badRows.share to 0.15."),
        (counts(1, 1), counts(9), limits(), "r: row 1 is odd (1 of 10 rows is rejected); correct it."),
        (counts(4, 2, nothing=2), counts(0), limits(), "r: row 1 is odd (2 of 4 rows are rejected: row 1, row 2); correct them."),
        (counts(20), counts(1, 1), limits(requires_holdout=True), "r: row 1 is odd (1 of 21 rows is rejected); correct it."),
    ],
)  # fmt: skip
def test_the_remedies_for_rejected_rows_work(train: RowCounts, held_out: RowCounts, limit: Limits, message: str) -> None:
    with pytest.raises(StageError) as raised:
        limit.require_good(train, held_out)
    assert (raised.value.reason.name, raised.value.message) == ("BadRow", message)
    if "Drop" not in message:
        return
    share = message.partition("share to ")[2].rstrip(".")
    followed = Limits(TokenizationInputs(max_seq_len=64, bad_rows="Drop", bad_rows_share=float(share or 0.1)), None, limit.bad)
    followed.require_good(train, held_out)
    followed.require_enough(train)


@pytest.mark.parametrize(("split", "expected"), [(True, 8.0), (False, 10.0)])
def test_rows_that_stage_dataset_dropped_count_by_their_share_of_the_split(split: bool, expected: float) -> None:
    seal = Seal("d", {}, {"droppedRows": 100, "droppedTrainRows": 10, "split": split, "source": "a", "evalSource": "a"})
    assert bad_in_training(seal, 80, 20) == expected


def test_no_share_at_the_boundary_is_rejected() -> None:
    """Rows that stage *dataset* has just allowed are not rejected by rounding of their share of the split."""
    for rows in range(2, 200):
        bad, held_out = rows // 10, -(-(rows - rows // 10) // 10)
        seal = Seal("d", {}, {"droppedTrainRows": bad, "split": True})
        train = rows - bad - held_out
        if train:
            limits(bad=bad_in_training(seal, train, held_out)).require_enough(RowCounts("r", train))


def test_all_keys_without_effect_are_one_warning() -> None:
    unused = Unused()
    unused.keys.update({"name": 3})
    assert unused.warnings() == ["3 rows have name, which has no effect"]
    unused.keys.update({f"key{number}": 1 for number in range(5)})
    assert unused.warnings() == [
        "the rows have keys that have no effect: name (3 rows), key0 (1 row), key1 (1 row), key2 (1 row) and 2 more"
    ]
