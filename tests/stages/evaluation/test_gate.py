"""What a training program could write into the workspace to pass the gate, and that the evaluation measures the trained model all the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.codec import digest, encode
from finetune_contract.documents import EvaluationInputs
from finetune_contract.result import EvaluationOutputs, Result
from finetune_stages.chat.rendered_rows import passages_digest
from finetune_stages.sdk import read_seal, seal_directory

from .conftest import prepare

INPUTS = EvaluationInputs("final")
BASELINE = (sys.executable, "-m", "finetune_stages.evaluation")
PERFECT = {"holdout.bits_per_byte": 0.0}


@pytest.fixture
def programs(run_stage_program: Any, tiny_model: Path) -> Any:
    """A workspace with everything in it, without task files."""
    finished = prepare(run_stage_program.workspace, run_stage_program.layout.root, tiny_model, rows=2)
    shutil.rmtree(run_stage_program.task_files)
    write_result(run_stage_program, encode(finished.outputs))
    return run_stage_program


def write_result(programs: Any, outputs: dict[str, Any]) -> None:
    """The file with the full result of stage *tokenization*."""
    place = result_of_rows(programs)
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(encode(Result("tokenization", "1.1", "0" * 64, "Succeeded", outputs=outputs))))


def result_of_rows(programs: Any) -> Path:
    return Path(programs.path(programs.layout.newest_result("tokenization")))


def model_of(programs: Any) -> Path:
    return Path(programs.path(programs.layout.final_model))


def reported(programs: Any, **more: str) -> dict[str, str]:
    """The variables of the Job after stages that reported the models and the rendered rows that are there now."""
    seals = {"training": read_seal(model_of(programs)), "model": read_seal(programs.path(programs.layout.base_model))}
    models = {stage: {"outputs": seal.digest} for stage, seal in seals.items() if seal}
    rows = {"file": hashlib.sha256(result_of_rows(programs).read_bytes()).hexdigest()}
    return {"FINETUNE_READS": json.dumps({**models, "tokenization": rows}), **more}


def test_a_planted_result_is_not_taken_for_an_earlier_one(programs: Any) -> None:
    seal = read_seal(model_of(programs))
    outputs = encode(EvaluationOutputs(seal.digest, 2, ("holdout",)))
    planted = Result("evaluation", "1.1", digest(encode(INPUTS)), "Succeeded", metrics=PERFECT, outputs=outputs)
    place = programs.path(programs.layout.result("evaluation", 1, planted.inputs_digest))
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


def link_templates(model: Path) -> None:
    """Tokenizers read the templates in this folder, which may be elsewhere."""
    (model.parent / "templates").mkdir()
    (model.parent / "templates/default.jinja").write_text("{{ messages }}")
    (model / "additional_chat_templates").symlink_to("../templates")


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (replace_model, "its seal has digest"), (replace_weights, "its files have digest"), (forge_seal, "its files have digest"),
        (add_template, "its seal has 325"), (link_templates, "its files have digest"),
    ],
    ids=["model", "weights", "seal", "template", "linked templates"],
)  # fmt: skip
def test_another_model_than_the_reported_one_is_not_measured(programs: Any, replace: Callable[[Path], None], words: str) -> None:
    variables = reported(programs)
    replace(model_of(programs))
    ended = programs("evaluation", INPUTS, environment=variables)
    assert (ended.code, ended.reason) == (65, "ModelChanged")
    assert words in ended.result.message
    assert ended.result.message.endswith("; rerun from stage training.")


def test_another_base_model_than_the_reported_one_is_not_measured(programs: Any) -> None:
    variables = reported(programs)
    replace_weights(programs.path(programs.layout.base_model))
    ended = programs("baseline", EvaluationInputs("base"), environment=variables, command=BASELINE)
    assert (ended.code, ended.reason) == (65, "ModelChanged")
    assert ended.result.message.endswith("; rerun from stage model.")


def rewrite_rows(programs: Any) -> None:
    """Rows of the longest word that is one token (\u0120 is the space): its loss is that of a token, and it has more bytes."""
    vocabulary = json.loads((model_of(programs) / "tokenizer.json").read_bytes())["model"]["vocab"]
    word = max((token[1:] for token in vocabulary if token.startswith("\u0120") and token[1:].isalpha()), key=len)
    rows = programs.path(programs.layout.passages("holdout"))
    easy = [{"text": f"{word} {word}", "answers": [[len(word) + 1, 2 * len(word) + 1]]}]
    rows.write_text("".join(json.dumps({"row": row, "line": row, "passages": easy}) + "\n" for row in (1, 2)))


def seal_rows(programs: Any) -> None:
    rewrite_rows(programs)
    seal_directory(programs.path(programs.layout.tokens))


def forge_result(programs: Any) -> None:
    seal_rows(programs)
    seal = read_seal(programs.path(programs.layout.tokens))
    assert seal is not None
    outputs = json.loads(result_of_rows(programs).read_text())["outputs"]
    write_result(programs, {**outputs, "passagesDigest": passages_digest(seal)})


def forge_seal_of_rows(programs: Any) -> None:
    """Other rows under the name of the reported ones, which stay in the seal."""
    folder = programs.path(programs.layout.tokens)
    before = (folder / ".finetune.json").read_bytes()
    seal_rows(programs)
    (folder / ".finetune.json").write_bytes(before)


def remove_rows(programs: Any) -> None:
    programs.path(programs.layout.passages("holdout")).unlink()
    seal_directory(programs.path(programs.layout.tokens))


def put_pipe(programs: Any) -> None:
    rows = programs.path(programs.layout.passages("holdout"))
    rows.unlink()
    os.mkfifo(rows)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (put_pipe, "it is not the file that stage tokenization reported"),
        (rewrite_rows, "it is not the file that stage tokenization reported"),
        (forge_seal_of_rows, "it is not the file that stage tokenization reported"),
        (seal_rows, "the seal of the rendered rows has digest"),
        (remove_rows, "the seal of the rendered rows has digest"),
        (forge_result, "and stage tokenization reported digest"),
    ],
    ids=["pipe", "rows", "old seal", "new seal", "no rows", "result"],
)
def test_other_rows_than_the_reported_ones_are_not_scored(programs: Any, attack: Callable[[Any], None], words: str) -> None:
    variables = reported(programs)
    attack(programs)
    ended = programs("evaluation", INPUTS, environment=variables)
    assert (ended.code, ended.reason) == (65, "ResultChanged"), ended.errors
    assert words in ended.result.message
    assert ended.result.message.endswith("; rerun from stage evaluation.")


def test_the_baseline_scores_the_reported_rows(programs: Any) -> None:
    variables = reported(programs)
    seal_rows(programs)
    ended = programs("baseline", EvaluationInputs("base"), environment=variables, command=BASELINE)
    assert (ended.code, ended.reason) == (65, "ResultChanged"), ended.errors


def test_the_rewritten_rows_would_improve_the_score(programs: Any) -> None:
    """The attack is one: without a report to compare with, it succeeds."""
    true = programs("evaluation", INPUTS, environment=reported(programs))
    rewrite_rows(programs)
    easy = programs("evaluation", INPUTS, attempt="2.1")
    assert easy.result.metrics["holdout.bits_per_byte"] < true.result.metrics["holdout.bits_per_byte"]


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
