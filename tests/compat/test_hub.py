"""Engine training-hub with the real backends. Training Hub's functions run on CPUs here, through the shim in this folder."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.documents import CheckpointInputs, OsftInputs

HUB: dict[str, Any] = {"engine": "training-hub", "gradient_checkpointing": True}
SFT: dict[str, Any] = {**HUB, "algorithm": "sft", "sharding": "FULL_SHARD", "checkpoints": CheckpointInputs(per_epoch=True)}
OSFT: dict[str, Any] = {
    **HUB, "algorithm": "osft", "osft": OsftInputs(), "scheduler": "cosine_with_min_lr", "scheduler_args": {"min_lr_rate": 0.1},
}  # fmt: skip
BACKENDS = {"sft": "instructlab-training", "osft": "rhai-innovation-mini-trainer"}


@pytest.mark.parametrize("values", [SFT, OSFT], ids=["sft", "osft"])
def test_every_sample_is_seen_and_the_loss_falls(train, libraries, values):
    trained = train(libraries, **values)
    outputs = trained.result.outputs
    assert (outputs["samplesSeen"], outputs["expectedSamples"], outputs["steps"], outputs["opened"]) == (100, 100, 8, True)
    assert trained.losses[-1] < trained.losses[0]
    assert outputs["engine"] == "training-hub"
    assert {"training-hub", BACKENDS[values["algorithm"]], "torch"} <= outputs["versions"].keys()


@pytest.mark.parametrize("values", [SFT, OSFT], ids=["sft", "osft"])
def test_the_first_loss_is_that_of_the_portable_engine(train, libraries, values):
    """Both engines learn the same tokens, and begin with the same model; mini-trainer computes in 16 bits, and rows are shuffled."""
    portable = {**values, "engine": "portable", "sharding": "NO_SHARD"}
    hub, own = train(libraries, **values), train(libraries, **portable)
    assert hub.losses[0] == pytest.approx(own.losses[0], rel=0.05)
    assert hub.losses[-1] == pytest.approx(own.losses[-1], rel=0.15)


def test_a_model_of_each_epoch_is_published(train, libraries):
    run = train(libraries, **SFT).model.parent
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["epoch_1", "epoch_2"]
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        base = (run / "base_model" / name).read_text()
        if name != "config.json":
            assert (run / "final_model" / name).read_text() == base
            assert (run / "checkpoints/epoch_1" / name).read_text() == base


@pytest.mark.parametrize("values", [SFT, OSFT], ids=["sft", "osft"])
def test_two_processes_train_together(train, libraries, every_set, values):
    one, two = train(libraries, **values), train(libraries, 2, **values)
    assert (two.result.outputs["processes"], two.result.outputs["samplesSeen"]) == (2, 100)
    assert two.losses == pytest.approx(one.losses, rel=0.02)
