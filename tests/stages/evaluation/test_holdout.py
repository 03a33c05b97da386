"""How sure a score of chat rows is, and in which parts they go through a model."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_stages.evaluation.passages import RowFile, answers, read_passages
from finetune_stages.sdk import StageError


def test_the_standard_error_is_that_of_resampled_rows() -> None:
    from finetune_stages.evaluation.chat_task import ratio_error

    draw = random.Random(1)
    pairs = [(draw.gauss(3.0, 1.0) * size, size) for size in (draw.randint(5, 80) for _ in range(400))]

    def ratio(rows: Sequence[tuple[float, int]]) -> float:
        return sum(value for value, _ in rows) / sum(size for _, size in rows)

    resampled = [ratio(draw.choices(pairs, k=len(pairs))) for _ in range(2000)]
    mean = sum(resampled) / len(resampled)
    spread = math.sqrt(sum((value - mean) ** 2 for value in resampled) / (len(resampled) - 1))
    assert ratio_error(pairs) == pytest.approx(spread, rel=0.1)
    assert ratio_error([(2.0, 1), (6.0, 3)]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([], []),
        ([5000], [1]),
        ([1024, 1024], [1, 1]),
        ([600, 500, 300, 300, 300, 1], [1, 2, 2, 3, 3, 3]),
        ([1] * 70, [64] * 64 + [6] * 6),
    ],
)
def test_batches_hold_as_many_texts_as_their_longest_allows(lengths: list[int], sizes: list[int]) -> None:
    from finetune_stages.evaluation.scorer import batch_sizes

    assert batch_sizes(lengths, tokens=1024, largest=64) == sizes


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 12, 47, 100])
def test_windows_score_every_token_once_with_half_a_context_before_it(length: int) -> None:
    from finetune_stages.evaluation.scorer import Scorer

    room = 10
    windows = list(Scorer._windows(SimpleNamespace(max_length=room), 0, list(range(length))))
    covered = [token for window in windows for token in range(window.first, window.start + len(window.ids))]
    assert covered == list(range(1, length))
    for window in windows:
        assert window.ids == list(range(window.start, window.start + len(window.ids)))
        assert len(window.ids) <= room + 1
        assert window.start == 0 or window.first - window.start >= room // 2


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"passages": [1]}',
        '{"passages": [{"text": "", "answers": []}]}',
        '{"passages": [{"text": "a", "answers": [[0]]}]}',
    ],
)
def test_a_file_that_is_no_rendered_rows_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "holdout.jsonl").write_text(line + "\n")
    with pytest.raises(StageError, match=r"holdout.jsonl: it cannot be read .*; rerun from stage evaluation") as raised:
        read_passages(RowFile(tmp_path / "holdout.jsonl"))
    assert raised.value.reason.name == "DatasetUnreadable"


def test_the_answers_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "holdout.jsonl").write_text(
        '{"row": 1, "line": 0, "passages": [{"text": "a\u2028bc", "answers": [[0, 1], [2, 4]]}]}\n'
    )
    (row,) = read_passages(RowFile(tmp_path / "holdout.jsonl"))
    assert answers(row) == ["a", "bc"]
