"""Progress of a stage as text."""

from __future__ import annotations

import pytest

from finetune_operator.cli.stages_view import progress_text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({"step": 47, "totalSteps": 75, "loss": 3.2149, "tokensPerSecond": 1234, "etaSeconds": 18}, "step 47/75 · loss 3.215 · 1.2k tok/s · 18s left"),
        ({"loss": -1e300, "tokensPerSecond": 1e300}, "loss -1e+300 · 1.0e+300 tok/s"),
        ({"loss": 999999.0, "tokensPerSecond": 9.99e14}, "loss 999999.000 · 999000.0G tok/s"),
    ],
)  # fmt: skip
def test_progress_is_short_whatever_a_program_reports(progress: dict[str, float], text: str) -> None:
    assert progress_text(progress) == text
