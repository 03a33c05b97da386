"""What a training of an earlier round could write into the workspace before a rerun renders the rows, and that it is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pydocs
from finetune_contract.documents import TokenizationInputs
from finetune_stages.sdk import read_seal, seal_directory
from rendering import Tokenization

INPUTS = TokenizationInputs(max_seq_len=256)


@pytest.fixture
def stage(run_stage_program: Any, tiny_model: Path) -> Tokenization:
    """A workspace with prepared rows and a sealed base model."""
    found = Tokenization(run_stage_program.workspace, run_stage_program.run)
    found.write(pydocs.rows("signature", 4), pydocs.rows("purpose", 2))
    shutil.copytree(tiny_model, found.path("base_model"))
    seal_directory(found.path("base_model"))
    return found


def reported(stage: Tokenization) -> dict[str, str]:
    """The variable with what stages *dataset* and *model* reported."""
    seals = {"dataset": read_seal(stage.path("datasets")), "model": read_seal(stage.path("base_model"))}
    return {"FINETUNE_READS": json.dumps({name: {"outputs": seal.digest} for name, seal in seals.items() if seal})}


def change_rows(stage: Tokenization) -> None:
    path = stage.path("datasets/eval.jsonl")
    path.write_text(path.read_text().replace("e", "a"))


def change_and_seal_rows(stage: Tokenization) -> None:
    change_rows(stage)
    seal_directory(stage.path("datasets"))


def change_template(stage: Tokenization) -> None:
    (stage.path("base_model") / "chat_template.jinja").write_text("{{ messages }}")


def change_and_seal_template(stage: Tokenization) -> None:
    change_template(stage)
    seal_directory(stage.path("base_model"))


def remove_seal(stage: Tokenization) -> None:
    (stage.path("base_model") / ".finetune.json").unlink()


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (change_rows, "ResultChanged", "datasets: its files have digest"),
        (change_and_seal_rows, "ResultChanged", "datasets: its seal has digest"),
        (change_template, "ModelChanged", "base_model: chat_template.jinja has 14 bytes, and its seal has 325; rerun from stage model."),
        (change_and_seal_template, "ModelChanged", "base_model: its seal has digest"),
        (remove_seal, "ModelNotFound", "there is no complete model; rerun from stage model."),
    ],
)  # fmt: skip
def test_other_data_than_the_reported_one_is_not_rendered(
    run_stage_program: Any, stage: Tokenization, change: Callable[[Tokenization], None], reason: str, words: str
) -> None:
    variables = reported(stage)
    change(stage)
    ended = run_stage_program("tokenization", INPUTS, environment=variables)
    assert (ended.code, ended.reason) == (65, reason), ended.errors
    assert words in ended.result.message
    assert not stage.path("tokens").exists()


def test_the_reported_data_is_rendered_and_changed_rows_are_no_earlier_result(
    run_stage_program: Any, stage: Tokenization
) -> None:
    variables = reported(stage)
    first = run_stage_program("tokenization", INPUTS, environment=variables)
    assert first.code == 0, first.errors
    rows = stage.path("tokens/passages/holdout.jsonl")
    before = rows.read_bytes()
    rows.write_bytes(before.replace(b"e", b"a"))
    seal_directory(stage.path("tokens"))
    again = run_stage_program("tokenization", INPUTS, environment=variables, attempt="1.2")
    assert "nothing to do" not in again.output
    assert again.result.outputs == first.result.outputs
    assert rows.read_bytes() == before
