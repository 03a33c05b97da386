"""Trainings that are impossible are rejected with one message: the field, the problem, and the fix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import LoraInputs, OsftInputs

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
TWO_NODES = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1"}
OSFT = {"algorithm": "osft"}
LORA = {"algorithm": "lora"}


def _assert_rejected(ended: Any, reason: str, sentence: str) -> None:
    assert (ended.code, ended.reason) == (65, reason), ended.errors
    assert sentence in ended.result.message
    assert "Traceback" not in ended.errors
    assert ended.result.message in ended.errors


@pytest.mark.parametrize(
    ("changes", "environment", "reason", "sentence"),
    [
        (
            {"max_tokens_per_gpu": 100},
            {},
            "BadTrainingValue",
            "training.maxTokensPerGPU: 100 is less than training.maxSeqLen 256",
        ),
        (
            {**OSFT, "osft": OsftInputs(0, trainable="targets")},
            {},
            "BadTrainingValue",
            "training.osft.unfreezeRankRatio: 0 with training.osft.trainable: targets trains no weight; raise it, or set trainable to all.",
        ),
        ({**OSFT, "osft": OsftInputs(1.5)}, {}, "BadTrainingValue", "training.osft.unfreezeRankRatio: 1.5 is out of range"),
        (
            {"effective_batch_size": 15},
            TWO_NODES,
            "BadTrainingValue",
            "training.effectiveBatchSize: 15 is not divisible by 2 processes",
        ),
        ({"micro_batch_size": 5}, {}, "BadTrainingValue", "training.microBatchSize: 5 does not divide"),
        (
            {**LORA, "effective_batch_size": 15},
            TWO_NODES,
            "BadTrainingValue",
            "training.effectiveBatchSize: 15 is not divisible by 2 processes",
        ),
        ({**LORA, "micro_batch_size": 5}, {}, "BadTrainingValue", "training.microBatchSize: 5 does not divide"),
        (
            {**LORA, "lora": LoraInputs(rank=0)},
            {},
            "BadTrainingValue",
            "training.lora.rank: 0 is out of range; set a value at least 1",
        ),
        (
            {**LORA, "lora": LoraInputs(alpha=0)},
            {},
            "BadTrainingValue",
            "training.lora.alpha: 0 is out of range; set a value at least 1",
        ),
        (
            {**LORA, "lora": LoraInputs(dropout=1.0)},
            {},
            "BadTrainingValue",
            "training.lora.dropout: 1 is out of range; set a value from 0 to below 1",
        ),
        (
            {**LORA, "lora": LoraInputs(quantization="4bit")},
            NO_GPU,
            "NoGPU",
            "training.lora.quantization: 4bit requires an",
        ),
        (
            {**LORA, "lora": LoraInputs(quantization="8bit")},
            {**NO_GPU, "PET_NPROC_PER_NODE": "2"},
            "NoGPU",
            "this process has none; set it to none, or request a GPU",
        ),
        ({}, {"PET_NPROC_PER_NODE": "many"}, "BadTrainingValue", "PET_NPROC_PER_NODE: 'many' is not valid"),
    ],
)
def test_values_that_do_not_go_together(bench, inputs, tmp_path, changes, environment, reason, sentence):
    (tmp_path / "torch.py").write_text("raise ImportError('told before the engine is imported')")
    ended = bench.train(inputs(**changes), environment={**environment, "PYTHONPATH": str(tmp_path)})
    _assert_rejected(ended, reason, sentence)


def test_rows_that_were_not_prepared(bench):
    bench.run_path("tokens/.finetune.json").unlink()
    _assert_rejected(bench.train(), "DatasetNotFound", "tokens: it is not in the workspace; rerun from stage training")


def test_rows_that_are_longer_than_stated(bench, inputs):
    _assert_rejected(bench.train(inputs(max_seq_len=8)), "BadTrainingValue", "training.maxSeqLen: a row in ")


def test_rows_that_are_damaged(bench):
    bench.run_path("tokens/offsets.npy").write_bytes(b"x")
    _assert_rejected(bench.train(), "DatasetNotFound", "tokens: it cannot be read")


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
    [
        (
            {"scheduler_args": {"steepness": 2.0}},
            "BadTrainingValue",
            "training.schedulerArgs: {'steepness': 2.0} cannot be used with training.scheduler cosine: it has no argument steepness; correct",
        ),
        (
            {"scheduler": "polynomial", "scheduler_args": {"power": -1.0}},
            "BadTrainingValue",
            "training.schedulerArgs: {'power': -1.0} cannot be used",
        ),
        (
            {"scheduler": "cosine_with_min_lr", "scheduler_args": {"min_lr_rate": -5.0}},
            "BadTrainingValue",
            "cosine_with_min_lr: the smallest learning rate is negative; correct them.",
        ),
        (
            {"scheduler": "polynomial", "scheduler_args": {"lr_end": -1.0}},
            "BadTrainingValue",
            "polynomial: the learning rate becomes negative; correct them.",
        ),
        (
            {"epochs": 1, "effective_batch_size": 50, "warmup_steps": 1},
            "BadTrainingValue",
            "training.warmupSteps: it is 1 and the training has 1 steps, so the learning rate is always 0; lower it.",
        ),
        (
            {"learning_rate": 1e-30, "epochs": 1},
            "BadTrainingValue",
            "training.learningRate: training changed no weight by as much as its dtype can represent; raise it,",
        ),
        (
            {**LORA, "learning_rate": 1e-30, "epochs": 1},
            "BadTrainingValue",
            "training.learningRate: training changed no weight",
        ),
        ({"scheduler": "staircase"}, "BadTrainingValue", "training.scheduler staircase"),
        ({"scheduler": "constant", "scheduler_args": {"power": 2.0}}, "BadTrainingValue", "it takes no arguments"),
        ({**OSFT, "osft": OsftInputs(0.25, ("attention_out",))}, "NoMatchingWeights", "model.layers.*.self_attn.q_proj.weight"),
        ({"learning_rate": 1e30}, "LossNotANumber", "lower training.learningRate"),
        ({**LORA, "scheduler": "staircase"}, "BadTrainingValue", "training.scheduler staircase"),
        ({**LORA, "learning_rate": 1e30}, "LossNotANumber", "lower training.learningRate"),
        (
            {**LORA, "lora": LoraInputs(target_modules=("q_proj", "attention_out"))},
            "NoMatchingWeights",
            "training.lora.targetModules: no linear layer matches ['attention_out']; use names such as model.layers.*.self_attn.q_proj.weight",
        ),
    ],
)
def test_what_the_engine_finds_out(bench, inputs, changes, reason, sentence):
    _assert_rejected(bench.train(inputs(**changes)), reason, sentence)
    assert not bench.path("final_model").exists()
    assert not bench.path("adapter").exists()
    assert bench.leftovers() == []


@pytest.fixture
def own_model(bench, tiny_model, tmp_path) -> Path:
    """A copy of the tiny model in the run's place, to be spoilt."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    bench.run_path("base_model").unlink()
    bench.run_path("base_model").symlink_to(model)
    return model


def _change_config(model: Path, **changes: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))


def _own_code(model: Path) -> None:
    _change_config(model, model_type="own", auto_map={"AutoModelForCausalLM": "own.Model", "AutoConfig": "own.Config"})
    (model / "own.py").write_text("")


def _unknown_kind(model: Path) -> None:
    _change_config(model, model_type="from_the_future")


def _contradiction(model: Path) -> None:
    _change_config(model, num_hidden_layers=3)


def _layer_without_weights(model: Path) -> None:
    _change_config(model, num_hidden_layers=3, layer_types=["full_attention"] * 3)


@pytest.mark.parametrize(
    ("spoil", "changes", "reason", "sentence"),
    [
        (_own_code, {}, "RemoteCode", "model.trustRemoteCode"),
        (
            _unknown_kind,
            {},
            "EngineMissing",
            "does not know the architecture of the model (The checkpoint you are trying to load",
        ),
        (_contradiction, {}, "ModelCorrupt", "`num_hidden_layers` (3) must be equal to the number of `layer_types`"),
        (_layer_without_weights, {}, "ModelIncomplete", "model.layers.2."),
        (_layer_without_weights, LORA, "ModelIncomplete", "model.layers.2."),
    ],
)
def test_models_that_cannot_be_trained(bench, inputs, own_model, spoil, changes, reason, sentence):
    spoil(own_model)
    _assert_rejected(bench.train(inputs(**changes)), reason, sentence)
