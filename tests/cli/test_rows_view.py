"""Rows, tokens and estimates of a run as people read them."""

from __future__ import annotations

from typing import Any

from finetune_operator.cli.rows_view import estimate_values, row_values, sample_lines, token_line

ROWS: dict[str, Any] = {
    "source": 1200, "trained": 1000, "tokens": 50_000, "learnedTokens": 12_500,
    "tokensPerRow": {"p50": 40, "p90": 90, "p99": 200, "max": 1024},
}  # fmt: skip
ESTIMATE = {
    "stepsPerEpoch": 8,
    "steps": 24,
    "tokens": 150_000,
    "memoryBytes": 16 * 2**30,
    "computeTeraflop": 6148,
    "gpuTime": "about 1 GPU minute",
}


def test_counts_of_rows_have_the_share_of_learned_tokens_and_percentiles() -> None:
    assert row_values(ROWS) == {
        "source": "1,200", "trained": "1,000", "tokens": "50,000", "learnedTokens": "12,500 (25%)",
        "tokensPerRow": "median 40, 90% 90, 99% 200, longest 1,024",
    }  # fmt: skip
    assert row_values({"source": 3, "bad": 0}) == {"source": "3", "bad": "0"}


def test_estimates_are_shown_in_readable_units() -> None:
    assert estimate_values(ESTIMATE) == {
        "stepsPerEpoch": "8",
        "steps": "24",
        "tokens": "150,000",
        "memoryBytes": "16.0 GiB",
        "computeTeraflop": "6,148",
        "gpuTime": "about 1 GPU minute",
    }
    assert estimate_values({"steps": 24}) == {"steps": "24"}


def test_the_outcome_of_a_run_has_one_line_about_tokens() -> None:
    line = "50,000 in 1,000 rows (median 40, longest 1,024); 12,500 (25%) learned; 24 steps, 8 per epoch"
    assert (
        token_line(ROWS, ESTIMATE)
        == f"{line}; 16.0 GiB for weights and optimizer in each process without sharding; about 1 GPU minute"
    )
    assert token_line(ROWS, {key: value for key, value in ESTIMATE.items() if key not in ("memoryBytes", "gpuTime")}) == line
    assert token_line({"source": 1200}, {}) is None


def test_a_sample_row_marks_learned_lines_and_shows_no_control_characters() -> None:
    parts = [
        {"text": "<|user|>\na\x1b[31m?\r\n<|assistant|>", "learned": False}, {"text": "b\u202e\nc ✓<|end|>", "learned": True},
        {"omitted": 1234}, {"text": "\n", "learned": False},
    ]  # fmt: skip
    row = {"row": 5, "line": 7, "tokens": 1, "learnedTokens": 4, "parts": parts}
    assert [line.plain for line in sample_lines([row, {**row, "line": 0, "parts": []}])] == [
        "row 5 (line 7): 1 token, 4 learned", "  <|user|>", "  a\\x1b[31m?\\r", "  <|assistant|>", "+ b\\u202e", "+ c ✓<|end|>",
        "  ... 1,234 characters left out ...", "  ", "row 5: 1 token, 4 learned",
    ]  # fmt: skip
