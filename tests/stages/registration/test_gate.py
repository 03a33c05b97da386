"""A model or a result that was replaced after the gate is not registered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.stages import REGISTRATION, RERUN_TARGETS, STAGES
from finetune_stages.sdk import identity, seal_directory

from .conftest import BASE, stage_inputs, write_results


@pytest.fixture
def trained(programs: Any) -> dict[str, str]:
    """The model of the run and the results of its stages; the paths of these by stage."""
    model = programs.path(programs.layout.final_model)
    model.mkdir(parents=True)
    (model / "weights").write_text("trained")
    return write_results(programs.workspace, programs.layout.root, model=seal_directory(model).digest)


def reads(programs: Any, results: dict[str, str], **changes: Any) -> dict[str, str]:
    """The variable with what the stages reported."""
    digests = {"training": json.loads((programs.workspace / results["training"]).read_text())["outputs"]["digest"], "model": BASE}
    found = {
        stage: {
            **({"outputs": digests[stage]} if stage in digests else {}),
            "file": hashlib.sha256((programs.workspace / path).read_bytes()).hexdigest(),
        }
        for stage, path in results.items()
    }
    return {"FINETUNE_READS": json.dumps({stage: entry for stage, entry in {**found, **changes}.items() if entry is not None})}


def test_what_was_reported_is_registered(programs: Any, trained: dict[str, str], look: Any) -> None:
    ended = programs("registration", stage_inputs(trained), environment=reads(programs, trained, baseline=None))
    assert ended.code == 0, ended.errors
    (run,) = look().search_runs([look().get_experiment_by_name("finetune").experiment_id])
    names = {name.partition(".")[0] for name in run.data.metrics}
    assert "holdout" not in names, "the scores are those of another model than the trained one"
    assert "baseline" not in names, "a stage that has not succeeded in this round has no result"


def replace_weights(programs: Any, _results: dict[str, str]) -> None:
    (programs.path(programs.layout.final_model) / "weights").write_text("another")


def replace_model(programs: Any, _results: dict[str, str]) -> None:
    replace_weights(programs, _results)
    seal_directory(programs.path(programs.layout.final_model))


def remove_seal(programs: Any, _results: dict[str, str]) -> None:
    (programs.path(programs.layout.final_model) / ".finetune.json").unlink()


def replace_scores(programs: Any, results: dict[str, str]) -> None:
    path: Path = programs.workspace / results["evaluation"]
    path.write_text(path.read_text().replace("1.7", "0.1"))


def replace_training(programs: Any, results: dict[str, str]) -> None:
    path: Path = programs.workspace / results["training"]
    path.write_text(path.read_text().replace("2.1", "0.1"))


@pytest.mark.parametrize(
    ("replace", "reason", "words"),
    [
        (replace_weights, "ModelChanged", "its files have digest"), (replace_model, "ModelChanged", "its seal has digest"),
        (remove_seal, "ModelNotFound", "there is no complete model; rerun from stage training."),
        (replace_scores, "ResultChanged", "rerun from stage evaluation."),
        (replace_training, "ResultChanged", "rerun from stage training."),
    ],
)  # fmt: skip
def test_what_was_replaced_is_not_registered(
    programs: Any, trained: dict[str, str], replace: Callable[[Any, dict[str, str]], None], reason: str, words: str
) -> None:
    variables = reads(programs, trained)
    replace(programs, trained)
    ended = programs("registration", stage_inputs(trained), environment=variables)
    assert (ended.code, ended.reason) == (65, reason), ended.errors
    assert words in ended.result.message
    assert not programs.path("mlflow.db").exists()


def test_a_result_without_a_reported_digest_is_not_registered(programs: Any, trained: dict[str, str]) -> None:
    ended = programs("registration", stage_inputs(trained), environment=reads(programs, trained, evaluation={}))
    assert (ended.code, ended.reason) == (65, "ResultChanged")
    assert "stage evaluation reported no digest of the file; rerun from stage evaluation." in ended.result.message


@pytest.mark.parametrize("stage", REGISTRATION.reads)
def test_the_stage_to_rerun_from_is_one_that_a_run_can_name(stage: str) -> None:
    (definition,) = (one for one in STAGES if one.name == stage)
    assert identity._RERUN_FROM.get(stage, stage) == definition.rerun_target
    assert definition.rerun_target in RERUN_TARGETS


def test_a_result_of_training_about_another_model_is_not_registered(programs: Any, trained: dict[str, str]) -> None:
    path: Path = programs.workspace / trained["training"]
    result = json.loads(path.read_text())
    reported = reads(programs, trained)
    result["outputs"]["digest"] = "0" * 64
    path.write_text(json.dumps(result))
    variables = json.loads(reported["FINETUNE_READS"])
    variables["training"]["file"] = hashlib.sha256(path.read_bytes()).hexdigest()
    ended = programs("registration", stage_inputs(trained), environment={"FINETUNE_READS": json.dumps(variables)})
    assert (ended.code, ended.reason) == (65, "ResultChanged")
    assert "the result of stage training is that of another model" in ended.result.message
