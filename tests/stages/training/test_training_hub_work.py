"""Engine training-hub from rows to a published model, with a package in place of Training Hub that does what a backend does not do on demand."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_contract import progress as progress_lines
from finetune_contract.documents import CheckpointInputs, OsftInputs

PROGRAM = """
from finetune_stages.sdk import run_stage
from finetune_stages.training.training_hub.installed import Installed
from finetune_stages.training.training_hub.work import train
from finetune_stages.training.processes import Processes

installed = Installed(frozenset(), frozenset(), {"training-hub": "0"})
raise SystemExit(run_stage(("training",), lambda context: train(context, Processes(), installed), lambda *_: True))
"""
BACKEND = """
import json, pathlib, shutil
from safetensors.torch import load_file, save_file

def report(folder, *numbers):
    samples = (0, 16, 32, 48, 50, 66, 82, 98, 100)
    lines = [{"step": one, "avg_loss": 3 - one / 8, "samples_seen": samples[one], "lr": 0.1, "num_epoch_steps": 4} for one in numbers]
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\\n" for line in lines)
    pathlib.Path(folder, "training_params_and_metrics_global0.jsonl").write_text(text)

def write(model, folder, samples, change=1e-4, factor=1):
    target = pathlib.Path(folder, "hf_format", f"samples_{samples}")
    shutil.copytree(model, target)
    weights = {name: factor * weight + change for name, weight in load_file(target / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", {"format": "pt"})

def sft(*, model_path, ckpt_output_dir, **_):
"""


@pytest.fixture
def train(bench: Any, inputs: Any, tmp_path: Path) -> Callable[..., Any]:
    """``train(code, **changes)``: engine training-hub with a backend whose function ``sft`` runs that code."""

    def run(code: str, **changes: Any) -> Any:
        package = tmp_path / "packages" / "training_hub"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"{BACKEND}    {code}\n")
        environment = {"PYTHONPATH": f"{package.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "FINETUNE_GPUS": "0"}
        return bench.train(
            inputs(engine="training-hub", checkpoints=CheckpointInputs(per_epoch=True), **changes),
            environment=environment,
            command=[sys.executable, "-c", PROGRAM],
        )

    return run


def test_steps_that_the_metrics_lack_are_counted_and_stated(train: Any) -> None:
    """The backends write their metrics in a thread that they do not wait for."""
    ended = train("report(ckpt_output_dir, 1, 3, 2, 4, 6, 5); write(model_path, ckpt_output_dir, 100)")
    assert ended.code == 0, ended.errors
    outputs, metrics = ended.result.outputs, ended.result.metrics
    assert (outputs["steps"], outputs["samplesSeen"], outputs["expectedSamples"], metrics["steps"]) == (8, 100, 100, 8)
    assert [point.step for point in ended.result.history] == [1, 2, 3, 4, 5, 6]
    assert (metrics["first_loss"], metrics["final_loss"]) == (2.875, 2.25)
    assert ended.result.warnings == (
        "training: the backend's metrics end with step 6 of 8, and final_loss is the loss of that step.",
    )
    assert "2 x 50 rows in 8 steps" in ended.result.message
    message = json.loads(ended.message)
    assert (message["currentStep"], message["totalSteps"], message["currentEpoch"]) == (8, 8, 2)
    last = progress_lines.last(ended.output)
    assert last is not None
    assert (last.step, last.total_steps, last.percent) == (8, 8, 99)


def test_complete_metrics_have_no_warning(train: Any) -> None:
    ended = train("report(ckpt_output_dir, *range(1, 9)); write(model_path, ckpt_output_dir, 100)")
    assert ended.code == 0, ended.errors
    assert (ended.result.outputs["steps"], ended.result.warnings, len(ended.result.history)) == (8, (), 8)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("pass", "training: 0 of 100 samples were processed (2 x 50 rows); read the log of stage training."),
        (
            "write(model_path, ckpt_output_dir, 100)",
            "training: the backend wrote a model and no metrics; read the log of stage training, or set training.engine to portable.",
        ),
        (
            "report(ckpt_output_dir, 3, 4, 5, 6, 7, 8); write(model_path, ckpt_output_dir, 100)",
            "training: the first step that the backend reports ended with sample 48;",
        ),
        (
            "report(ckpt_output_dir, *range(1, 9)); shutil.copytree(model_path, f'{ckpt_output_dir}/hf_format/samples_100')",
            "training: the backend's model has the weights of the base model; raise training.learningRate",
        ),
        (
            "report(ckpt_output_dir, *range(1, 9)); write(model_path, ckpt_output_dir, 100, 0, 30)",
            "training: the backend reports a loss that falls from 2.875 to 2.000, but the loss of a row is ",
        ),
        ("report(ckpt_output_dir, 1, 2); write(model_path, ckpt_output_dir, 50)", "training: 50 of 100 samples were processed"),
    ],
)
def test_a_training_without_proof_is_incomplete(bench: Any, train: Any, code: str, words: str) -> None:
    ended = train(code)
    assert (ended.reason, ended.code) == ("TrainingIncomplete", 1), ended.errors
    assert words in ended.result.message
    assert not bench.path("final_model").exists()
    assert not bench.path("checkpoints/epoch_1").exists()


def test_arguments_of_the_schedule_are_checked_before_the_call(train: Any) -> None:
    values = {"scheduler": "linear", "scheduler_args": {"foo": 3.0}}
    ended = train("raise KeyError", algorithm="osft", osft=OsftInputs(), **values)
    assert (ended.reason, ended.code) == ("BadTrainingValue", 65), ended.errors
    assert "cannot be used with training.scheduler linear: it has no argument foo; correct them." in ended.result.message
    assert "KeyError" not in ended.output


def test_patterns_that_match_nothing_are_rejected_before_the_call(bench: Any, train: Any) -> None:
    """mini-trainer would train every weight in full."""
    ended = train("raise KeyError", algorithm="osft", osft=OsftInputs(target_patterns=("q_proj", "attention_out")))
    assert (ended.reason, ended.code) == ("NoMatchingWeights", 65), ended.errors
    assert "training.osft.targetPatterns: no linear layer matches ['attention_out']; use names such as " in ended.result.message
    assert "KeyError" not in ended.output
