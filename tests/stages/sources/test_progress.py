"""Notes about the progress of a part of a stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_contract.progress import Progress
from finetune_stages.sources.progress import ProgressCounter


@pytest.mark.parametrize(
    ("total", "rows", "note"),
    [
        (4_000_000, False, "reading, 2 of 4 MB"),
        (0, False, "reading, 2 MB"),
        (999_999, False, "reading"),
        (4_000_000, True, "reading"),
    ],
)
def test_megabytes_are_counted_if_there_is_more_than_one(total: int, rows: bool, note: str) -> None:
    reported: list[Progress] = []
    context: Any = SimpleNamespace(last_progress=None, report=reported.append)
    ProgressCounter(context, "reading", total, rows=rows)(2_000_000)
    assert [one.note for one in reported] == [note]
