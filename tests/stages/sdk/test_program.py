"""The frame around a stage's work."""

from __future__ import annotations

import json
import re
from typing import Any

from .plain_stage import stage_inputs


def test_the_gates_metrics_survive_in_the_short_result(stage: Any) -> None:
    metrics = {f"task_{number:03}.{name}": 0.5 for number in range(200) for name in ("acc", "acc_stderr")}
    kept = {"FINETUNE_KEEP_METRICS": "task_199.acc,task_150.acc"}
    ended = stage(stage_inputs(metrics=metrics), environment=kept)
    assert len(ended.message.encode()) <= 4096
    assert ended.result.truncated
    assert {f"task_{number}.acc{error}" for number in (199, 150) for error in ("", "_stderr")} <= set(ended.result.metrics)
    assert len(ended.result.metrics) < len(metrics)
    whole = json.loads((stage.folder / "results/training.json").read_text())
    assert metrics.items() <= whole["metrics"].items()


def test_warnings_that_do_not_fit_are_counted_and_in_the_log(stage: Any) -> None:
    warnings = [f"warning {number}" for number in range(1, 11)]
    warnings[0] += " is long" * 60
    ended = stage(stage_inputs(warnings=warnings))
    assert ended.result.warnings == (
        warnings[0][:253] + "...", *warnings[1:7], "and 3 more warnings in the log of the stage",
    )  # fmt: skip
    assert all(f"training: warning: {warning}\n" in ended.output for warning in warnings)
    exactly = [*warnings[1:8], "x" * 256]
    assert stage(stage_inputs(warnings=exactly, content="2")).result.warnings == tuple(exactly)


def test_only_the_document_that_the_pod_was_created_for_is_used(stage: Any) -> None:
    ended = stage(stage_inputs(content="1"), environment={"FINETUNE_DOCUMENT_DIGEST": "0" * 64})
    assert (ended.code, ended.reason) == (1, "InputsReplaced")
    found = re.fullmatch(
        rf"FINETUNE_CONFIG: the document has SHA-256 ([0-9a-f]{{64}}), and the pod was created for {'0' * 64}; delete the ConfigMap with"
        r" the inputs of the run, and the operator creates it again\.",
        ended.result.message,
    )
    assert found is not None, ended.result.message
    assert stage(stage_inputs(content="1"), environment={"FINETUNE_DOCUMENT_DIGEST": found[1]}).code == 0
