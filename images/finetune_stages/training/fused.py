"""The trainer on GPUs with TRL's fused output layer and loss, which never builds the logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from finetune_contract.documents import TrainingInputs

from .batches import Plan
from .settings import settings
from .trainer import RowTrainer


class FusedRowTrainer(RowTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on a :class:`~.batches.Plan`."""

    builds_logits = False

    @classmethod
    def settings(cls, inputs: TrainingInputs, plan: Plan, folder: Path) -> Any:
        """Return the trainer's settings in TRL's class."""
        return settings(SFTConfig, inputs, plan, folder, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss: the cross entropy of the micro-batch's labels, divided by the number of labels of the step."""
        return SFTTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
