"""Shares of rows that may be left out."""

from __future__ import annotations

import pytest

from finetune_stages.sources.row_faults import FaultyRows, may_be_left_out, sufficient_share


def test_every_share_that_a_message_suggests_is_accepted() -> None:
    for total in range(2, 301):
        for bad in range(1, total):
            share = float(f"{sufficient_share(bad, total):g}")
            assert may_be_left_out(bad, total, share), (bad, total, share)
            assert share <= bad / total * 1.1 + 1e-9


@pytest.mark.parametrize(
    ("count", "total", "share"), [(29, 100, 0.29), (7, 100, 0.07), (57, 100, 0.57), (8.0, 88.0, 0.091), (1, 1000, 0.001)]
)
def test_the_smallest_share_of_two_digits(count: float, total: float, share: float) -> None:
    assert sufficient_share(count, total) == share
    assert may_be_left_out(count, total, share)


def test_one_row_more_is_too_many() -> None:
    for total in range(1, 301):
        for percent in range(101):
            allowed = percent * total // 100
            assert may_be_left_out(allowed, total, percent / 100)
            assert not may_be_left_out(allowed + 1, total, percent / 100)


def test_the_log_has_every_row_up_to_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    faulty = FaultyRows()
    for number in range(1, 1003):
        faulty.add(number, f"row {number}", "is bad")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["row 1 is bad", "row 2 is bad"]
    assert lines[999:] == ["row 1000 is bad", "only the first 1,000 rows of this kind are listed"]
