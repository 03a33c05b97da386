"""transformers' trainer for tokenized rows, with exact batches, a count of processed samples, and a cheaper loss.

The trainer's sampler repeats rows to fill uneven shares, so the micro-batches come from a :class:`~.batches.Plan`. Models apply the
output layer to every position; here only positions with a label go through it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from pyarrow import LargeListArray, array
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from finetune_contract.documents import TrainingInputs

from .batches import PackedPlan, Plan
from .outcome import require_number
from .packing import PackedCollator, PackedRows, PaddedCollator, rows_with_labels
from .rows import IGNORED, Rows
from .settings import settings


class RowTrainer(Trainer):  # type: ignore[misc]
    """A trainer on a :class:`~.batches.Plan`.

    Attributes:
        samples: rows that this process has trained on.
        packed: dataset for the sequences of a :class:`PackedPlan`.
        builds_logits: whether the loss needs memory for the logits of the labels.
    """

    builds_logits = True

    def __init__(self, plan: Plan, packed: PackedRows | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.samples = 0
        self.packed = packed
        self._plan = plan
        self._learned: Tensor | None = None
        # The loss is divided by the labels of a whole step, independently of the model's own loss.
        self.model_accepts_loss_kwargs = True
        self._router_weight = router_weight(self.model.config)
        self.remove_callback(PrinterCallback)

    @classmethod
    def settings(cls, inputs: TrainingInputs, plan: Plan, folder: Path) -> Any:
        """Return the trainer's settings; ``folder`` is for its own files."""
        return settings(TrainingArguments, inputs, plan, folder)

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train, with the output layer restricted to positions with a label."""
        hook = self.model.get_output_embeddings().register_forward_pre_hook(self._only_learned)
        try:
            with warnings.catch_warnings():
                # transformers has no setting yet for torch's replacement
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                return super().train(*arguments, **options)
        finally:
            hook.remove()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the plan's micro-batches. They are only this process's share: accelerate must not divide them again."""
        return DataLoader(
            self.train_dataset if self.packed is None else self.packed,
            batch_sampler=self._plan,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run forward and backward pass of one micro-batch.

        Raises:
            StageError: ``LossNotANumber``, before the optimizer changes the weights.
        """
        rows = rows_with_labels(inputs)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        require_number(float(loss), "loss", self.state.global_step + 1)
        self.samples += rows
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the cross entropy, summed over the micro-batch's labels and divided by the number of labels of the step.

        A model with experts adds the loss of its routers, the mean over the micro-batches of a step.
        """
        labels = inputs.pop("labels")[:, 1:]
        self._learned = labels != IGNORED
        routers = {"output_router_logits": True} if self._router_weight else {}
        outputs = model(**inputs, **routers, use_cache=False)
        loss = functional.cross_entropy(outputs.logits.float(), labels[self._learned], reduction="sum")
        self._learned = None
        # The labels of all processes are counted, and the gradients are averaged over the processes.
        loss = loss / num_items_in_batch * self.args.world_size
        if self._router_weight:
            loss = loss + self._router_weight * outputs.aux_loss / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _only_learned(self, _head: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Pass only hidden states (batch, positions, hidden) with a label to the output layer."""
        if self._learned is None:
            return None
        hidden, *others = arguments
        return hidden[:, :-1][self._learned], *others


def router_weight(config: Any) -> float:
    """Return the weight of the routers' loss of a model with experts; 0 for other models."""
    text = config.get_text_config()
    return float(getattr(text, "router_aux_loss_coef", 0.0)) if hasattr(text, "output_router_logits") else 0.0


def dataset_of(rows: Rows) -> Dataset:
    """Return the rows followed by a filler: one row without a label."""
    offsets = array(np.append(rows.offsets, rows.offsets[-1] + 1))
    columns = {"input_ids": np.append(rows.tokens, rows.tokens[:1]), "labels": np.append(rows.labels, np.int32(IGNORED))}
    return Dataset.from_dict({name: LargeListArray.from_arrays(offsets, array(values)) for name, values in columns.items()})


def collator(tokenizer: Any, plan: Plan) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    """Return the collator of a plan. Padding has no label, so any token pads."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    token = next(token for token in candidates if token is not None)
    return PackedCollator(token) if isinstance(plan, PackedPlan) else PaddedCollator(token)
