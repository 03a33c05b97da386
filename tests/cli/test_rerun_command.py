"""The command that applies a rejected edit: it can be pasted into a shell, and does what the edit was meant to do."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from finetune_operator.cli.assignments import apply_assignments
from finetune_operator.cli.options import RunOptions
from finetune_operator.cli.rerun_command import assignments, command_to_repeat, remedy_for_edit, stage_to_repeat
from finetune_operator.core.run import Run
from finetune_operator.loop.apply import difference

SPEC: dict[str, Any] = {
    "dataset": {"uri": "org/data"},
    "training": {"epochs": 1, "placement": {"nodeSelector": {"gpu.example.com/model": "a", "zone": "b"}}},
    "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 2.5}]},
}
STAGES = ("workspace", "dataset", "model", "tokenization", "baseline", "training", "evaluation", "gate", "registration")


def run(failed: str | None = None, **status: Any) -> Run:
    failure = {"failure": {"stage": failed, "reason": "X"}} if failed else {}
    stages = [{"name": name, "state": "Succeeded"} for name in STAGES]
    status = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T01:00:00Z", "stages": stages, **failure, **status}
    return Run.parse({"metadata": {"name": "demo"}, "spec": SPEC, "status": status})


EDITS: dict[str, dict[str, Any]] = {
    "a number": {"training": {**SPEC["training"], "epochs": 2}},
    "a removed field": {"training": {"placement": SPEC["training"]["placement"]}},
    "a removed section": {"gate": None},
    "a new section": {"model": {"uri": "org/model"}},
    "a list": {"gate": {"requirements": [{"metric": "arc_easy.acc", "min": 0.5}, {"metric": "x.y's", "max": 1e-3}]}},
    "a key with a dot": {"training": {"epochs": 1, "placement": {"nodeSelector": {"gpu.example.com/model": "c", "zone": "b"}}}},
    "a removed key with a dot": {"training": {"epochs": 1, "placement": {"nodeSelector": {"zone": "b"}}}},
    "text that YAML reads as a number": {"dataset": {"uri": "org/data", "revision": "1e3", "split": "yes"}},
    "a space and a quote": {"registry": {"description": "it's new = better"}},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_the_pasted_assignments_make_the_edited_spec(edit: dict[str, Any]) -> None:
    edited = {name: value for name, value in {**SPEC, **edit}.items() if value is not None}
    remedy = remedy_for_edit(run(), difference(SPEC, edited), " --home x")
    words = shlex.split(remedy.partition("finetune ")[2])
    assert words[:5] == ["rerun", "demo", "--home", "x", "--from"]
    assert words[6::2] == ["--set"] * (len(words[6:]) // 2)
    assert apply_assignments(SPEC, words[7::2]) == edited


@pytest.mark.parametrize(
    ("failed", "section", "stage"),
    [
        ("training", "training", "training"),
        ("training", "evaluation", "training"),  # evaluation has no input before training is repeated
        ("baseline", "evaluation", "evaluation"),
        ("tokenization", "training", "training"),
        ("evaluation", "dataset", "dataset"),
        (None, "gate", "gate"),
        (None, "registry", "registration"),
    ],
)
def test_the_rerun_starts_where_the_change_and_the_failure_allow(failed: str | None, section: str, stage: str) -> None:
    remedy = remedy_for_edit(run(failed), {section: {"x": 1}}, "")
    assert remedy.startswith(f"apply the change with: finetune rerun demo --from {stage} --set ")


def test_storage_cannot_change_in_a_rerun() -> None:
    remedy = remedy_for_edit(run(), {"storage": {"claimName": "other"}}, "")
    assert remedy == """start a new run with the change: finetune clone demo --set 'storage={"claimName": "other"}'"""


def test_a_run_that_has_not_ended_is_cloned() -> None:
    running = run(finishedAt=None)
    assert remedy_for_edit(running, {"training": {"epochs": 3}}, " -n a") == (
        "start a new run with the change: finetune clone demo -n a --set training.epochs=3"
    )


def test_the_failed_stage_is_repeated() -> None:
    assert stage_to_repeat(run()) is None
    assert [stage_to_repeat(run(stage)) for stage in ("dataset", "tokenization", "training", "workspace")] == [
        "dataset", "training", "training", "dataset",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "reason", "options", "command"),
    [
        ("tokenization", "TooManyRowsLeftOut", " --secret a=b", "--secret a=b --from dataset (with --set FIELD=VALUE for each field that you change)"),
        ("tokenization", "Crashed", "", "--from training"),
        ("training", "OutOfMemoryGPU", " --home x", "--home x --from training (with --set FIELD=VALUE for each field that you change)"),
        ("model", "ModelUnreachable", "", "--from model"),
    ],
)  # fmt: skip
def test_the_command_after_a_failure(stage: str, reason: str, options: str, command: str) -> None:
    failed = run(failure={"stage": stage, "reason": reason})
    assert command_to_repeat(failed, options) == f"run it again with: finetune rerun demo {command}"
    assert command_to_repeat(run(), options) is None


def test_options_that_a_further_command_repeats() -> None:
    assert RunOptions().repeated == ""
    assert RunOptions(secrets=["a=b c", "d=e"], allow_code=True).repeated == " --secret 'a=b c' --secret d=e --allow-code"


def test_nothing_changed_is_no_assignment() -> None:
    assert list(assignments(SPEC, {})) == []


def test_the_rerun_that_was_rejected_is_no_assignment() -> None:
    patch = {"dataset": {"subset": 3}, "rerun": {"id": "a", "from": "training"}}
    remedy = remedy_for_edit(run(), patch, "")
    assert remedy == "apply the change with: finetune rerun demo --from dataset --set dataset.subset=3"
