"""Engine training-hub with the real backends. Training Hub's functions run on CPUs here, through the shim in this folder."""

from __future__ import annotations

import json
import subprocess

import pytest

from compat.sets import SETS
from finetune_contract.documents import CheckpointInputs

from .algorithms import HUB, PORTABLE
from .conftest import interpreter_of

NEWEST = SETS[-1]
BACKENDS = {"sft": "instructlab-training", "osft": "rhai-innovation-mini-trainer"}


@pytest.mark.parametrize("algorithm", HUB)
def test_every_sample_is_seen_and_the_loss_falls(train, hub_libraries, recorded, algorithm):
    trained = train(hub_libraries, **HUB[algorithm])
    recorded(trained, hub_libraries, algorithm)
    outputs = trained.result.outputs
    assert (outputs["samplesSeen"], outputs["expectedSamples"], outputs["steps"], outputs["opened"]) == (100, 100, 8, True)
    assert outputs["engine"] == "training-hub"
    assert {"training-hub", BACKENDS[algorithm], "torch"} <= outputs["versions"].keys()


@pytest.mark.parametrize("algorithm", HUB)
def test_the_losses_are_those_of_the_portable_engine(train, hub_libraries, algorithm):
    """Both engines learn the same tokens, and begin with the same model; mini-trainer computes in 16 bits, and rows are shuffled."""
    hub, portable = train(hub_libraries, **HUB[algorithm]), train(hub_libraries, **PORTABLE[algorithm])
    assert hub.losses[0] == pytest.approx(portable.losses[0], rel=0.05)
    assert hub.losses[-1] == pytest.approx(portable.losses[-1], rel=0.15)


def test_a_model_of_each_epoch_is_published(train, hub_libraries):
    run = train(hub_libraries, **HUB["sft"]).model.parents[1]
    assert sorted(path.name for path in (run / "training/checkpoints").iterdir()) == ["epoch_1", "epoch_2"]
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        base = (run / "base_model" / name).read_text()
        if name != "config.json":
            assert (run / "training/final_model" / name).read_text() == base
            assert (run / "training/checkpoints/epoch_1" / name).read_text() == base


@pytest.mark.parametrize("algorithm", HUB)
def test_two_processes_train_together(train, hub_libraries, every_set, recorded, algorithm):
    one, two = train(hub_libraries, **HUB[algorithm]), train(hub_libraries, 2, **HUB[algorithm])
    assert (two.result.outputs["processes"], two.result.outputs["samplesSeen"]) == (2, 100)
    assert two.losses == pytest.approx(one.losses, rel=0.02)
    recorded(two, hub_libraries, algorithm)


@pytest.mark.parametrize("algorithm", HUB)
def test_two_pods_train_together(train, hub_libraries, every_set, recorded, algorithm):
    """Each pod calls Training Hub once; the backends find each other by Kubeflow Trainer's variables."""
    one, two = train(hub_libraries, **HUB[algorithm]), train(hub_libraries, nodes=2, **HUB[algorithm])
    assert (two.result.outputs["processes"], two.result.outputs["samplesSeen"]) == (2, 100)
    assert two.losses == pytest.approx(one.losses, rel=0.02)
    recorded(two, hub_libraries, algorithm, pods=2)


ARGUMENTS = """
import json, sys
from pathlib import Path
from finetune_contract.documents import OsftInputs, TrainingInputs
from finetune_stages.training.training_hub.arguments import arguments
from finetune_stages.training.training_hub.installed import installed
from finetune_stages.training.processes import Processes

inputs = TrainingInputs(sys.argv[1], "training-hub", 2, 16, 4096, 256, 1e-2, osft=OsftInputs())
found = installed(inputs)
call = arguments(inputs, Processes.from_environment({}), Path("model"), Path("folder"), found, flash_attention=False)
print(json.dumps([name for name in call if not found.accepts(name)]))
"""


@pytest.mark.parametrize("algorithm", HUB)
def test_every_argument_has_an_effect(program, libraries, algorithm):
    """Training Hub drops an argument that the backend does not know."""
    words = [interpreter_of(libraries), "-c", ARGUMENTS, algorithm]
    done = subprocess.run(words, env={"PYTHONPATH": str(program)}, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout or "null") == [], done.stderr


STEPS = (16, 32, 48, 50, 66, 82, 98, 100)
REPORT = """
import json, math, pathlib, shutil, time

def report(folder, samples, loss=1.0):
    lines = [{"step": number, "avg_loss": loss, "samples_seen": seen, "lr": 0.1} for number, seen in enumerate(samples, 1)]
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\\n" for line in lines)
    pathlib.Path(folder, "training_params_and_metrics_global0.jsonl").write_text(text)

def copy(model, folder, samples):
    shutil.copytree(model, pathlib.Path(folder, "hf_format", f"samples_{samples}"))

def sft(*, model_path, ckpt_output_dir, **_):
"""
FAULTS = {
    "nothing": ("pass", "TrainingIncomplete", "training: 0 of 100 samples were processed (2 x 50 rows)"),
    "stopped": (
        f"report(ckpt_output_dir, {STEPS[:4]}); copy(model_path, ckpt_output_dir, 50)", "TrainingIncomplete", "training: 50 of 100 samples were processed",
    ),
    "modelless": (f"report(ckpt_output_dir, {STEPS})", "TrainingIncomplete", "the backend wrote no model after 100 samples"),
    "untrained": (
        f"report(ckpt_output_dir, {STEPS}); copy(model_path, ckpt_output_dir, 100)", "TrainingIncomplete",
        "the backend's model has the weights of the base model",
    ),
    "diverged": (f"report(ckpt_output_dir, {STEPS}, math.nan); time.sleep(60)", "LossNotANumber", "the loss became nan in step 1"),
    "raised": ("raise ImportError('No module named flash_attn_2_cuda')", "EngineMissing", "No module named flash_attn_2_cuda"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_backend_that_has_not_trained_fails_the_stage(train, tmp_path_factory, fault):
    """A package in place of Training Hub ends with exit code 0, as the real one does in these cases, but not on demand."""
    code, reason, words = FAULTS[fault]
    package = tmp_path_factory.mktemp(fault) / "training_hub"
    package.mkdir()
    (package / "__init__.py").write_text(f"{REPORT}    {code}\n")
    ended = train(NEWEST, packages=package.parent, **{**HUB["sft"], "checkpoints": CheckpointInputs()}).failure
    assert ended.reason == reason
    assert words in ended.message
