"""The portable engine with old and new libraries: the same losses, the same weights."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file

from compat.environments import SETS
from finetune_contract.documents import LoraInputs, OsftInputs

ALGORITHMS: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft"},
    "osft": {"algorithm": "osft", "osft": OsftInputs(0.25, (), "all")},
    "lora": {"algorithm": "lora", "lora": LoraInputs(4, 8)},
    "lora-packed": {"algorithm": "lora", "lora": LoraInputs(4, 8, packing=True), "max_seq_len": 160},
    "sft-recomputed": {"algorithm": "sft", "gradient_checkpointing": True},
}
NEWEST = SETS[-1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_sample_is_seen_and_the_loss_falls(train, libraries, algorithm):
    trained = train(libraries, **ALGORITHMS[algorithm])
    outputs = trained.result.outputs
    assert (outputs["samplesSeen"], outputs["expectedSamples"], outputs["steps"], outputs["opened"]) == (100, 100, 8, True)
    assert trained.losses[-1] < trained.losses[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_losses_and_weights_are_those_of_the_newest_libraries(train, older_libraries, algorithm):
    trained, newest = (train(name, **ALGORITHMS[algorithm]) for name in (older_libraries, NEWEST))
    # transformers 4 rounds the loss that it reports to four digits.
    assert trained.losses == pytest.approx(newest.losses, abs=1e-4)
    weights = load_file(newest.model / "model.safetensors")
    found = load_file(trained.model / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in found.items():
        assert float((tensor - weights[name]).abs().max()) < 1e-4, name


@pytest.mark.parametrize("algorithm", ["sft", "osft", "lora"])
def test_a_model_of_16_bits_with_tied_weights_keeps_its_names_and_dtypes(train, libraries, tied_model, algorithm, request):
    _only_osft_in_every_run(algorithm, request)
    trained = train(libraries, model=tied_model, **ALGORITHMS[algorithm])
    assert trained.losses[-1] < trained.losses[0]
    before, after = (load_file(folder / "model.safetensors") for folder in (tied_model, trained.model))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in before.items()
    }


@pytest.mark.parametrize("algorithm", ["sft", "osft", "lora"])
def test_two_processes_train_as_one(train, libraries, algorithm, request):
    _only_osft_in_every_run(algorithm, request)
    one, two = (train(libraries, processes, **ALGORITHMS[algorithm]) for processes in (1, 2))
    assert (two.result.outputs["processes"], two.result.outputs["samplesSeen"]) == (2, 100)
    assert two.losses == pytest.approx(one.losses, rel=1e-4, abs=1e-4)


def _only_osft_in_every_run(algorithm: str, request: pytest.FixtureRequest) -> None:
    if algorithm != "osft":
        request.getfixturevalue("every_set")
