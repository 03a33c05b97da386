"""Trainings that the tests of both engines run: inputs of the stage, as changes of the smallest training."""

from __future__ import annotations

from typing import Any

from finetune_contract.documents import CheckpointInputs, LoraInputs, OsftInputs

_OSFT: dict[str, Any] = {
    "algorithm": "osft", "osft": OsftInputs(), "scheduler": "cosine_with_min_lr", "scheduler_args": {"min_lr_rate": 0.1},
}  # fmt: skip
_HUB: dict[str, Any] = {"engine": "training-hub", "gradient_checkpointing": True}

PORTABLE: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft"},
    "osft": _OSFT,
    "lora": {"algorithm": "lora", "lora": LoraInputs(4, 8)},
    "lora, packed": {"algorithm": "lora", "lora": LoraInputs(4, 8, packing=True), "max_seq_len": 160},
    "sft, recomputed": {"algorithm": "sft", "gradient_checkpointing": True},
}
HUB: dict[str, dict[str, Any]] = {
    "sft": {**_HUB, "algorithm": "sft", "sharding": "FULL_SHARD", "checkpoints": CheckpointInputs(per_epoch=True)},
    "osft": {**_HUB, **_OSFT},
}
