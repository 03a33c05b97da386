"""What a training program could write into the workspace to pass the gate, and that the evaluation measures the trained model all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.codec import digest, encode
from finetune_contract.documents import EvaluationInputs
from finetune_contract.result import EvaluationOutputs, Result
from finetune_stages.evaluation.task_rules import require_own_data
from finetune_stages.sdk import StageError, read_seal, seal_directory
from finetune_stages.sources.task_files import Definition

from .conftest import prepare

INPUTS = EvaluationInputs("final")
PERFECT = {"holdout.bits_per_byte": 0.0}


@pytest.fixture
def programs(run_stage_program: Any, tiny_model: Path) -> Any:
    """A workspace with everything in it, without task files."""
    prepare(run_stage_program.workspace, run_stage_program.layout.root, tiny_model, rows=2)
    shutil.rmtree(run_stage_program.task_files)
    return run_stage_program


def model_of(programs: Any) -> Path:
    return Path(programs.path(programs.layout.final_model))


def reported(programs: Any, **more: str) -> dict[str, str]:
    """The variables of the evaluation's Job after a training that reported the model that is there now."""
    seal = read_seal(model_of(programs))
    assert seal is not None
    return {"FINETUNE_READS": json.dumps({"training": {"outputs": seal.digest}}), **more}


def test_a_planted_result_is_not_taken_for_an_earlier_one(programs: Any) -> None:
    seal = read_seal(model_of(programs))
    outputs = encode(EvaluationOutputs(seal.digest, 2, ("holdout",)))
    planted = Result("evaluation", "1.1", digest(encode(INPUTS)), "Succeeded", metrics=PERFECT, outputs=outputs)
    place = programs.path(programs.layout.result("evaluation", 1, planted.inputs_digest))
    place.parent.mkdir()
    place.write_text(json.dumps(encode(planted)))
    ended = programs("evaluation", INPUTS, environment=reported(programs, FINETUNE_FIRST="1"))
    assert ended.code == 0, ended.errors
    assert ended.result.metrics["holdout.bits_per_byte"] > 1
    again = programs("evaluation", INPUTS, environment=reported(programs), attempt="1.2")
    assert "nothing to do" in again.output, "the program's own result is repeated in a later attempt"
    assert again.result.metrics == ended.result.metrics


def replace_model(model: Path) -> None:
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    seal_directory(model)


def replace_weights(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")


def forge_seal(model: Path) -> None:
    """The files of another model under the digest of the trained one."""
    before = json.loads((model / ".finetune.json").read_text())
    replace_model(model)
    seal = json.loads((model / ".finetune.json").read_text())
    (model / ".finetune.json").write_text(json.dumps({**seal, "digest": before["digest"]}))


def add_template(model: Path) -> None:
    """Tokenizers read this file in place of the template in their configuration."""
    (model / "chat_template.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (replace_model, "its seal has digest"), (replace_weights, "its files have digest"), (forge_seal, "its files have digest"),
        (add_template, "its files have digest"),
    ],
    ids=["model", "weights", "seal", "template"],
)  # fmt: skip
def test_another_model_than_the_reported_one_is_not_measured(programs: Any, replace: Callable[[Path], None], words: str) -> None:
    variables = reported(programs)
    replace(model_of(programs))
    ended = programs("evaluation", INPUTS, environment=variables)
    assert (ended.code, ended.reason) == (65, "ModelChanged")
    assert words in ended.result.message
    assert ended.result.message.endswith("; rerun from stage training.")


def test_without_a_report_of_training_there_is_nothing_to_measure(programs: Any) -> None:
    ended = programs("evaluation", INPUTS, environment={"FINETUNE_READS": "{}"})
    assert (ended.code, ended.reason) == (65, "BadDocument")
    assert ended.result.message == "FINETUNE_READS: it has no digest of stage training; rerun from stage training."


def test_a_task_in_the_workspace_does_not_exist(programs: Any) -> None:
    (programs.workspace / "tasks").mkdir()
    (programs.workspace / "tasks/quiz.yaml").write_text("task: quiz\ndataset_path: json\n")
    (programs.workspace / "tasks/manners.jsonl").write_text("{}\n")
    for task in ("quiz", "manners"):
        ended = programs("evaluation", EvaluationInputs("final", tasks=(task,)))
        assert (ended.code, ended.reason) == (65, "TaskNotFound")


def test_passages_that_no_task_file_asks_for_are_no_task(programs: Any) -> None:
    planted = programs.path(programs.layout.passages("quiz"))
    shutil.copy(programs.path(programs.layout.passages("holdout")), planted)
    ended = programs("evaluation", EvaluationInputs("final", tasks=("quiz",)))
    assert (ended.code, ended.reason) == (65, "TaskNotFound")


def test_a_task_file_cannot_redefine_a_task_of_lm_eval(programs: Any) -> None:
    programs.task_files.mkdir()
    (programs.task_files / "mine.yaml").write_text("task: arc_easy\ndataset_path: json\n")
    ended = programs("evaluation", EvaluationInputs("final", tasks=("arc_easy",)))
    assert (ended.code, ended.reason) == (65, "TaskInvalid")
    assert ended.result.message == (
        "evaluation.taskFiles: 'arc_easy' is the name of a task of lm-eval; rename the task in your file."
    )


def test_data_of_tasks_is_never_read_from_the_workspace(tmp_path: Path) -> None:
    workspace, mounted = tmp_path / "workspace", tmp_path / "mounted"
    for folder in (workspace / "runs", mounted):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(workspace)
    (mounted / "rows.jsonl").write_text("{}\n")

    def rejection(**config: Any) -> str | None:
        try:
            require_own_data(workspace, [mounted], [Definition(mounted / "t.yaml", config)])
        except StageError as error:
            return f"{error.reason}: {error.message}"
        return None

    def file(path: str) -> str | None:
        return rejection(dataset_path="json", dataset_kwargs={"data_files": {"test": [path]}})

    inside = (
        f"{workspace}/runs/a.jsonl", "../workspace/runs/a.jsonl", f"file://{workspace}/a.jsonl", f"{tmp_path}/link/a.jsonl",
        f"{workspace}/**/a.jsonl", f"{tmp_path}/w*/a.jsonl", f"zip://a.jsonl::{workspace}/a.zip", str(workspace),
    )  # fmt: skip
    assert all(file(path) for path in inside)
    assert file(inside[0]) == (
        f"TaskInvalid: evaluation.tasks: t.yaml reads {inside[0]} from the workspace; put the file into the ConfigMap of evaluation.taskFiles and"
        " write its key."
    )
    assert rejection(dataset_path=str(workspace / "runs"))
    assert rejection(dataset_path="json", dataset_kwargs={"data_dir": str(workspace)})
    assert rejection(group="g", task=[{"task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": inside[1]}}, "x"])
    outside = (
        "rows.jsonl",
        "*.jsonl",
        str(mounted / "rows.jsonl"),
        f"https://example.org{workspace}/a",
        "org/data",
        "a\0b",
        "/data/x",
    )
    assert [path for path in outside if file(path)] == []
