"""The stage as a program: what it publishes, repeats and reuses, and what it imports."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pydocs
from families import edit_config
from finetune_contract.codec import decode
from finetune_contract.documents import RunInfo, TokenizationInputs
from finetune_contract.result import TokenizationOutputs
from finetune_stages.sdk import StageError, verify_seal
from finetune_stages.tokenization import work as tokenization_work
from finetune_stages.tokenization.identity import fingerprint_of
from finetune_stages.tokenization.rows import task_rows
from rendering import Tokenization

INPUTS = TokenizationInputs(max_seq_len=256, bad_rows_share=0.2)
THOUGHT = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b", "reasoning_content": "hm"}]}
LONG = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "word " * 300}]}

ROWS, HELD_OUT = pydocs.rows("signature", 18), pydocs.rows("purpose", 4)


def prepare(programs: Any, letter: str, model: Path) -> Tokenization:
    """Another run of the workspace, with what the stages before left for it."""
    programs.run = RunInfo(f"run-{letter}", "team-a", letter * 16)
    stage = Tokenization(programs.workspace, programs.run)
    stage.write([*ROWS, THOUGHT, LONG], HELD_OUT)
    stage.link_model(model)
    return stage


def test_rows_are_published_repeated_and_reused(run_stage_program: Any, tiny_model: Path) -> None:
    stage = prepare(run_stage_program, "a", tiny_model)
    command = [sys.executable, "-X", "importtime", "-m", "finetune_stages.tokenization"]
    first = run_stage_program("tokenization", INPUTS, command=command)
    assert first.code == 0, first.errors
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in first.errors.splitlines()}
    assert "transformers" in imported
    assert "torch" not in imported
    assert "PyTorch" not in first.output + first.errors
    outputs = decode(TokenizationOutputs, first.result.outputs)
    arrays = [np.load(stage.path(f"tokens/{name}.npy"), mmap_mode="r") for name in ("tokens", "learned", "offsets")]
    assert [values.dtype for values in arrays] == [np.int32, np.bool_, np.int64]
    assert (outputs.rows, outputs.too_long, outputs.measured_rows, outputs.not_measured) == (19, 1, 4, 0)
    assert (outputs.tokens, outputs.learned_tokens) == (len(arrays[0]), int(arrays[1].sum()))
    lengths = sorted(np.diff(arrays[2]).tolist())
    assert outputs.longest == lengths[-1]
    # Nearest ranks of 19 rows: the 10th, the 18th and the 19th.
    assert (outputs.median, outputs.p90, outputs.p99) == (lengths[9], lengths[17], lengths[18])
    shape = json.loads((tiny_model / "config.json").read_bytes())
    assert outputs.attention == sum(length**2 for length in lengths) * shape["num_hidden_layers"] * shape["hidden_size"]
    assert [len(texts) for texts in stage.scored()] == [1] * 4
    assert [warning.partition(",")[0] for warning in first.result.warnings] == [
        "1 of 20 training rows is left out: 1 has more than 256 tokens (training.maxSeqLen)",
        "1 row has reasoning_content",
    ]
    assert first.result.message.startswith("19 training rows with ")
    assert first.result.message.endswith(f" 4 held-out rows with answers to score; {first.result.warnings[0]}")
    again = run_stage_program("tokenization", INPUTS, attempt="1.2")
    assert "nothing to do" in again.output
    assert again.result.outputs == first.result.outputs

    taken = prepare(run_stage_program, "b", tiny_model)
    second = run_stage_program("tokenization", INPUTS, command=command)
    assert (second.code, second.result.reused) == (0, True), second.errors
    assert (second.result.outputs, second.result.warnings) == (first.result.outputs, first.result.warnings)
    assert verify_seal(taken.path("tokens")) == verify_seal(stage.path("tokens"))
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in second.errors.splitlines()}
    assert not imported & {"numpy", "transformers", "jinja2"}


def test_the_digest_is_that_of_what_training_reads(tmp_path: Path, tiny_model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(tiny_model)
    train, held_out = pydocs.rows("signature", 6), pydocs.rows("purpose", 3)
    stage.write(train[:5], held_out[:2])
    first = stage()
    stage.write(train[:5], held_out)
    assert stage().outputs.digest == first.outputs.digest
    stage.write(train, held_out[:2])
    assert stage().outputs.digest != first.outputs.digest


def test_a_changed_file_of_chat_rows_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = replace(INPUTS, tasks=("quiz", "arc_easy"), task_files=True)
    (tmp_path / "task-files").mkdir()
    monkeypatch.setenv("FINETUNE_TASK_FILES", str(tmp_path / "task-files"))
    before = fingerprint_of(inputs)
    (tmp_path / "task-files/quiz.jsonl").write_text(json.dumps(THOUGHT))
    after = fingerprint_of(inputs)
    assert set(after) - set(before) == {"chat/quiz"}
    (tmp_path / "task-files/quiz.jsonl").write_text(json.dumps(LONG))
    assert fingerprint_of(inputs) != after
    (tmp_path / "task-files/quiz.yaml").write_text("task: quiz\n")
    assert fingerprint_of(inputs) == before
    with pytest.raises(StageError, match="'holdout' is reserved for the held-out rows; rename your task or group"):
        fingerprint_of(replace(inputs, tasks=("holdout",)))


def test_a_file_of_chat_rows_that_changes_while_it_is_rendered(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Tokenization(tmp_path / "workspace")
    stage.link_model(tiny_model)
    stage.write(pydocs.rows("signature", 2))
    (tmp_path / "task-files").mkdir()
    (tmp_path / "task-files/quiz.jsonl").write_text(json.dumps(THOUGHT))

    def change_and_read(path: Path, *more: Any) -> Any:
        path.write_text(json.dumps(LONG))
        return task_rows(path, *more)

    monkeypatch.setattr(tokenization_work, "task_rows", change_and_read)
    with pytest.raises(StageError) as raised:
        stage(tasks=("quiz",))
    assert raised.value.reason.name == "TaskInvalid"
    assert raised.value.message == (
        "evaluation.tasks: the file of quiz changed while it was read; rerun the stage when no process writes to it."
    )
    assert not stage.path("tokens").exists()


@pytest.mark.parametrize("name", ["datasets/.finetune.json", "datasets/train.jsonl"])
def test_rows_that_were_not_prepared(name: str, tmp_path: Path, tiny_model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(tiny_model)
    stage.write(pydocs.rows("signature", 2))
    stage.path(name).unlink()
    with pytest.raises(StageError, match="is not in the workspace; rerun from stage dataset") as raised:
        stage()
    assert raised.value.reason.name == "DatasetNotFound"


def test_a_row_that_is_no_json_is_named(tmp_path: Path, tiny_model: Path) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(tiny_model)
    stage.write([*pydocs.rows("signature", 2), b"{"], first=7)
    with pytest.raises(StageError, match=r"^rows.jsonl: row 9 \(line 9\) is not JSON \(Expecting property name") as raised:
        stage()
    assert raised.value.reason.name == "BadRow"


def test_a_model_without_a_template(tmp_path: Path, tiny_model: Path) -> None:
    stage = Tokenization(tmp_path)
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "chat_template.jinja").unlink()
    stage.link_model(model)
    stage.write(pydocs.rows("signature", 2))
    stage.write([{"text": "A document."}], form="text")
    assert stage().outputs.rows == 1
    stage.write([{"input_ids": [1, 2, 3]}], [{"input_ids": [1, 2]}], form="tokenised")
    assert stage().outputs.rows == 1
    stage.write(pydocs.rows("signature", 2))
    with pytest.raises(StageError, match="its tokenizer has no chat template; use the instruct or chat variant") as raised:
        stage()
    assert raised.value.reason.name == "ChatTemplateMissing"


TOKENS = {"input_ids": [1, 2, 3]}
SILENT = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello.", "weight": 0}]}


@pytest.mark.parametrize(
    ("held_out", "form", "inputs", "message"),
    [
        ([], "tokenised", {}, "evaluation.tasks: it is empty, and no row is held out; hold rows out with dataset.trainSplit below 1 or dataset.evalUri, set a task, or set evaluation.enabled to false."),
        ([TOKENS, TOKENS], "tokenised", {}, "evaluation.tasks: it is empty, and none of 2 held-out rows of rows.jsonl can be scored, because rows of tokens have no text; set dataset.evalUri to rows with messages or text, set a task, or set evaluation.enabled to false."),
        ([TOKENS], "tokenised", {"tasks": ("own",)}, "gate: it reads a metric of the held-out rows, and none of 1 held-out rows of rows.jsonl can be scored, because rows of tokens have no text; set dataset.evalUri to rows with messages or text, or gate on another metric."),
        ([SILENT], "messages", {}, "evaluation.tasks: it is empty, and none of 1 held-out rows of rows.jsonl has an answer that can be scored; correct them, set a task, or set evaluation.enabled to false."),
    ],
)  # fmt: skip
def test_nothing_to_evaluate_is_reported_before_training(
    tmp_path: Path, tiny_model: Path, held_out: list[Any], form: str, inputs: dict[str, Any], message: str
) -> None:
    stage = Tokenization(tmp_path)
    stage.link_model(tiny_model)
    train = [TOKENS] if form == "tokenised" else pydocs.rows("signature", 2)
    stage.write(train, held_out, form=form)
    with pytest.raises(StageError) as raised:
        stage(requires_holdout=True, **inputs)
    assert (raised.value.reason.name, raised.value.message) == ("NothingToEvaluate", message)
    assert stage().outputs.rows == len(train)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"model_type": "zorg"}, "EngineMissing", "of the image does not know the architecture of the model"),
        ({"hidden_size": "large"}, "ModelCorrupt", "Field 'hidden_size' expected int, got str"),
        ({"model_type": "zorg", "auto_map": {"AutoModelForCausalLM": "zorg.Zorg"}}, None, ""),
    ],
)
def test_a_configuration_that_training_cannot_read(
    tmp_path: Path, tiny_model: Path, changes: dict[str, Any], reason: str | None, words: str
) -> None:
    """Training and evaluation load the model with the same library, and only after a GPU is allocated."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    edit_config(model, **changes)
    stage = Tokenization(tmp_path)
    stage.link_model(model)
    stage.write(pydocs.rows("signature", 2))
    if reason is None:
        assert stage(trust_remote_code=True).outputs.rows == 2
        return
    with pytest.raises(StageError) as raised:
        stage()
    assert raised.value.reason.name == reason
    assert words in raised.value.message
