"""How many rows may be left out, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.documents import TokenizationInputs
from finetune_stages.kit import Seal, StageError
from finetune_stages.tokenization.limits import Limits, Seen, bad_in_training


def limits(share: float = 0.1, positions: int | None = None, bad: float = 0.0, **inputs: Any) -> Limits:
    return Limits(TokenizationInputs(max_seq_len=64, bad_rows_share=share, **inputs), positions, bad)


@pytest.mark.parametrize(
    ("seen", "kept", "limit", "words"),
    [
        (Seen("r", 10, too_long=1, longest=90), 9, limits(), None),
        (Seen("r", 10, too_long=2, longest=90), 8, limits(), "r: 2 of 10 training rows are left out (2 have more than 64 tokens"),
        (Seen("r", 10, too_long=2, longest=90), 8, limits(), "raise training.maxSeqLen (to 90 for all that the model can read), or raise dataset.badRows.share to 0.2."),
        (Seen("r", 10, too_long=2, longest=90), 8, limits(positions=80), "(to 80 for all that the model can read)"),
        (Seen("r", 10, too_long=2, longest=90), 8, limits(positions=64), "shorten the rows, or raise dataset.badRows.share to 0.2."),
        (Seen("r", 10, too_long=2, longest=90, nothing=1), 7, limits(share=0.25), "training.maxSeqLen (to 90 for all that the model can read) and correct the others, or"),
        (Seen("r", 10, nothing=2), 8, limits(), "(2 have nothing to learn), more than dataset.badRows.share 0.1 allows; correct the rows, or"),
        (Seen("r", 9, nothing=1), 8, limits(bad=1.0), "r: 2 of 10 training rows are left out (1 has nothing to learn, 1 was bad in stage dataset)"),
        (Seen("r", 90), 90, limits(bad=10.0), None),
        (Seen("r", 3, rejected=3, example="row 1 is odd"), 0, limits(share=1.0), "r: none of 3 rows can be trained on (3 are rejected (row 1 is odd)); correct the rows."),
    ],
)  # fmt: skip
def test_one_limit_for_all_rows_that_are_left_out(seen: Seen, kept: int, limit: Limits, words: str | None) -> None:
    if words is None:
        limit.require_enough(seen, kept)
        return
    with pytest.raises(StageError) as raised:
        limit.require_enough(seen, kept)
    assert words in raised.value.message
    assert raised.value.reason.name == ("TooManyRowsLeftOut" if kept else "NoTrainableRows")


def test_rejected_rows_of_all_groups_are_counted_before_it_fails() -> None:
    train, held_out = Seen("r", 20), Seen("r", 5)
    for number in range(4):
        train.reject(f"row {number}", "is odd")
    held_out.reject("row 9", "is odder")
    with pytest.raises(StageError) as raised:
        limits().require_good(train, held_out)
    assert raised.value.message == (
        "r: row 0 is odd (5 of 25 rows are rejected: row 0, row 1, row 2, ...); correct them, or set dataset.badRows.policy to Drop and"
        " dataset.badRows.share to 0.2."
    )
    with pytest.raises(
        StageError, match=r"^r: row 9 is odder \(1 of 25 rows is rejected\); correct it, or set .*policy to Drop\.$"
    ):
        limits().require_good(Seen("r", 20), held_out)
    limits(bad_rows="Drop").require_good(train, held_out)


@pytest.mark.parametrize(("eval_source", "expected"), [("a", 8.0), ("b", 10.0)])
def test_rows_that_stage_dataset_dropped_count_by_their_share_of_the_split(eval_source: str, expected: float) -> None:
    seal = Seal("d", {}, {"droppedRows": 10, "source": "a", "evalSource": eval_source})
    assert bad_in_training(seal, 80, 20) == expected


def test_no_share_at_the_boundary_is_refused() -> None:
    """What stage *dataset* has just allowed is not refused by the rounding of its share of the split."""
    for rows in range(2, 200):
        bad, held_out = rows // 10, -(-(rows - rows // 10) // 10)
        seal = Seal("d", {}, {"droppedRows": bad, "source": "a", "evalSource": "a"})
        train = rows - bad - held_out
        if train:
            limits(bad=bad_in_training(seal, train, held_out)).require_enough(Seen("r", train), train)
