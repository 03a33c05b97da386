"""Engine training-hub with the real backends of old and new libraries, on the CPU shim."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune_contract.documents import CheckpointInputs, OsftInputs

ALGORITHMS: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft"},
    "osft": {"algorithm": "osft", "osft": OsftInputs(0.25, (), "all")},
}
HUB = {"engine": "training-hub", "gradient_checkpointing": True, "checkpoints": CheckpointInputs(True, 1)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_sample_is_seen_and_the_loss_falls(train, libraries, old_model, algorithm):
    trained = train(libraries, **ALGORITHMS[algorithm], **HUB)
    outputs = trained.result.outputs
    assert (outputs["engine"], outputs["samplesSeen"], outputs["steps"], outputs["opened"]) == ("training-hub", 100, 8, True)
    assert outputs["versions"]["training-hub"]
    assert trained.losses[-1] < 0.9 * trained.losses[0]
    assert "CPU shim of the tests" in trained.output
    before, after = (load_file(folder / "model.safetensors") for folder in (old_model, trained.model))
    assert {name: tensor.shape for name, tensor in after.items()} == {name: tensor.shape for name, tensor in before.items()}
    AutoModelForCausalLM.from_pretrained(trained.model)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_first_loss_is_that_of_the_portable_engine(train, libraries, algorithm):
    """Before the first step of the optimizer, both engines compute the same sum over the same rows, in other precisions."""
    hub, portable = (train(libraries, **ALGORITHMS[algorithm], **more) for more in (HUB, {}))
    assert hub.losses[0] == pytest.approx(portable.losses[0], abs=0.02)


def test_two_processes_train_as_one(train, libraries, every_set):
    """mini-trainer on two processes; rows are divided otherwise, so that only the first steps are comparable."""
    one, two = (train(libraries, processes, **ALGORITHMS["osft"], **HUB) for processes in (1, 2))
    assert (two.result.outputs["processes"], two.result.outputs["samplesSeen"]) == (2, 100)
    assert two.losses[0] == pytest.approx(one.losses[0], abs=0.01)
    assert two.losses[-1] < 0.9 * two.losses[0]
