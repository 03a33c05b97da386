"""The frame around a stage's work."""

from __future__ import annotations

import json
from typing import Any

from .plain_stage import wish


def test_the_gates_metrics_survive_in_the_short_result(stage: Any) -> None:
    metrics = {f"task_{number:03}.{name}": 0.5 for number in range(200) for name in ("acc", "acc_stderr")}
    kept = {"FINETUNE_KEEP_METRICS": "task_199.acc,task_150.acc"}
    ended = stage(wish(metrics=metrics), environment=kept)
    assert len(ended.message.encode()) <= 4096
    assert ended.result.truncated
    assert {f"task_{number}.acc{error}" for number in (199, 150) for error in ("", "_stderr")} <= set(ended.result.metrics)
    assert len(ended.result.metrics) < len(metrics)
    whole = json.loads((stage.folder / "results/training.json").read_text())
    assert metrics.items() <= whole["metrics"].items()
