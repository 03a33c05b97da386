"""The portable engine with old and new libraries: the same losses, the same weights."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from compat.sets import SETS

from .algorithms import PORTABLE

NEWEST = SETS[-1]


@pytest.mark.parametrize("algorithm", PORTABLE)
def test_every_sample_is_seen_and_the_loss_falls(train, libraries, recorded, algorithm):
    trained = train(libraries, **PORTABLE[algorithm])
    recorded(trained, libraries, algorithm)
    outputs = trained.result.outputs
    assert (outputs["samplesSeen"], outputs["expectedSamples"], outputs["steps"], outputs["opened"]) == (100, 100, 8, True)


@pytest.mark.parametrize("algorithm", PORTABLE)
def test_the_losses_and_weights_are_those_of_the_newest_libraries(train, older_libraries, algorithm):
    trained, newest = (train(name, **PORTABLE[algorithm]) for name in (older_libraries, NEWEST))
    # transformers 4 rounds the loss that it reports to four digits.
    assert trained.losses == pytest.approx(newest.losses, abs=1e-4)
    weights = load_file(newest.model / "model.safetensors")
    found = load_file(trained.model / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in found.items():
        assert float((tensor - weights[name]).abs().max()) < 1e-4, name


@pytest.mark.parametrize("algorithm", ["sft", "osft", "lora"])
def test_a_model_of_16_bits_with_tied_weights_keeps_its_names_and_dtypes(train, libraries, tied_model, algorithm, request):
    _only_old_osft_in_ci(libraries, algorithm, request)
    trained = train(libraries, model=tied_model, **PORTABLE[algorithm])
    assert trained.losses[-1] < trained.losses[0]
    before, after = (load_file(folder / "model.safetensors") for folder in (tied_model, trained.model))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in before.items()
    }


@pytest.mark.parametrize("algorithm", ["sft", "osft", "lora"])
def test_two_processes_train_as_one(train, libraries, recorded, algorithm, request):
    _only_old_osft_in_ci(libraries, algorithm, request)
    one, two = (train(libraries, processes, **PORTABLE[algorithm]) for processes in (1, 2))
    assert (two.result.outputs["processes"], two.result.outputs["samplesSeen"]) == (2, 100)
    assert two.losses == pytest.approx(one.losses, rel=1e-4, abs=1e-4)
    recorded(two, libraries, algorithm)


def _only_old_osft_in_ci(libraries: str, algorithm: str, request: pytest.FixtureRequest) -> None:
    """Skip other trainings in CI: tests/stages/training has them with the newest libraries, which are those of the project."""
    if (libraries, algorithm) != (SETS[0], "osft"):
        request.getfixturevalue("every_set")
