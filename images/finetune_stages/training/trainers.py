"""Choice of the trainer for this device and these libraries."""

from __future__ import annotations

from finetune_stages.sdk.gpus import on_gpu

from .libraries import has_fused_loss
from .trainer import RowTrainer


def trainer_class() -> type[RowTrainer]:
    """Return the trainer for this device and these libraries: TRL's fused loss saves memory on GPUs, where it exists."""
    if on_gpu() and has_fused_loss():
        from .fused import FusedRowTrainer

        return FusedRowTrainer
    return RowTrainer
