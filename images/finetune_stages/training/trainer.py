"""TRL's SFT trainer for tokenized rows, with exact batches, a count of processed samples, and a cheaper loss.

TRL accepts rows with ``input_ids`` and ``labels``, with its own collator. Its sampler repeats rows to fill uneven shares, so the
micro-batches come from a :class:`~.batches.Plan`. Its loss applies the output layer to every position and computes entropy and
accuracy; without a GPU's fused kernel that takes a third of a step, so then only positions with a label go through the output layer.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from pyarrow import LargeListArray, array  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finetune_contract import reasons
from finetune_contract.documents import TrainingInputs
from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint
from finetune_stages.sdk import StageError
from finetune_stages.sdk.gpus import on_gpu

from .batches import PackedPlan, Plan
from .memory import computes_in_bf16
from .packing import PackedCollator, PackedRows, rows_with_labels
from .processes import timeout
from .rows import IGNORED, Rows


class RowTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on a :class:`~.batches.Plan`.

    Attributes:
        samples: rows that this process has trained on.
        packed: dataset for the sequences of a :class:`PackedPlan`.
    """

    def __init__(self, plan: Plan, packed: PackedRows | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.samples = 0
        self.packed = packed
        self._plan = plan
        self._learned: Tensor | None = None
        # The loss is divided by the labels of a whole step, independently of the model's own loss.
        self.model_accepts_loss_kwargs = True
        self._lean = self.args.device.type == "cpu" and not self.aux_loss_enabled
        self.remove_callback(PrinterCallback)

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
        _require_number(float(loss), "loss", self.state.global_step + 1)
        self.samples += rows
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the cross entropy, summed over the micro-batch's labels and divided by the number of labels of the step."""
        if not self._lean:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")[:, 1:]
        self._learned = labels != IGNORED
        logits = model(**inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.float(), labels[self._learned], reduction="sum")
        self._learned = None
        # The labels of all processes are counted, and the gradients are averaged over the processes.
        return loss / num_items_in_batch * self.args.world_size

    def _only_learned(self, _head: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Pass only hidden states (batch, positions, hidden) with a label to the output layer."""
        if self._learned is None:
            return None
        hidden, *others = arguments
        return hidden[:, :-1][self._learned], *others


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]
    """Trainer callback: OSFT's projection, the loss curve, progress, a checkpoint per epoch."""

    report: Callable[[Progress], None]
    tokens_after: NDArray[np.int64]
    epochs: int
    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[int], None] | None = None
    history: list[LossPoint] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the timer."""
        self.started = time.monotonic()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Run the algorithm's work after an optimizer step."""
        if self.after_step:
            self.after_step()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Record the mean loss over all processes after each step.

        Raises:
            StageError: ``LossNotANumber``: the gradients overflowed.
        """
        if "loss" not in logs:  # the summary at the end
            return
        _require_number(logs.get("grad_norm", 0.0), "gradient", state.global_step)
        self.history.append(LossPoint(state.global_step, round(logs["loss"], 6)))
        step, total, passed = state.global_step, len(self.tokens_after), time.monotonic() - self.started
        self.report(
            Progress(
                percent=min(99, 100 * step // total), step=step, total_steps=total, epoch=round(state.epoch, 3),
                total_epochs=self.epochs, eta_seconds=round(passed / step * (total - step)), loss=round(logs["loss"], 4),
                learning_rate=logs.get("learning_rate"), tokens_per_second=round(float(self.tokens_after[step - 1]) / passed, 1),
            )
        )  # fmt: skip

    def on_epoch_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Write a checkpoint."""
        if self.after_epoch:
            self.after_epoch(round(state.epoch))


def dataset_of(rows: Rows) -> Dataset:
    """Return the rows in TRL's format, followed by a filler: one row without a label."""
    offsets = array(np.append(rows.offsets, rows.offsets[-1] + 1))
    columns = {"input_ids": np.append(rows.tokens, rows.tokens[:1]), "labels": np.append(rows.labels, np.int32(IGNORED))}
    return Dataset.from_dict({name: LargeListArray.from_arrays(offsets, array(values)) for name, values in columns.items()})


def collator(tokenizer: Any, plan: Plan) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    """Return TRL's collator. The trainer would otherwise set a padding token on the tokenizer and the model."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = DataCollatorForLanguageModeling(pad_token_id=next(token for token in candidates if token is not None))
    return PackedCollator(pad) if isinstance(plan, PackedPlan) else pad


def arguments(inputs: TrainingInputs, plan: Plan, folder: Path) -> SFTConfig:
    """Return the trainer's settings. The optimizer's numbers are those of Training Hub: betas .9 and .95, no decay, clipping at 1."""
    gpu = on_gpu()
    return SFTConfig(
        output_dir=str(folder), save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1,
        logging_nan_inf_filter=False, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
        num_train_epochs=inputs.epochs, per_device_train_batch_size=plan.micro, gradient_accumulation_steps=plan.accumulation,
        learning_rate=inputs.learning_rate, lr_scheduler_type=inputs.scheduler, warmup_steps=inputs.warmup_steps,
        lr_scheduler_kwargs=dict(inputs.scheduler_args), adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0,
        seed=inputs.seed, activation_checkpointing=inputs.gradient_checkpointing, use_cpu=not gpu,
        bf16=computes_in_bf16(), dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False, ddp_broadcast_buffers=False, ddp_timeout=int(timeout().total_seconds()),
        ddp_backend=None if gpu else "gloo" if plan.world > 1 else None,
    )  # fmt: skip


def require_schedule(inputs: TrainingInputs, steps: int) -> None:
    """Check that the learning rate's schedule exists and accepts its arguments.

    Raises:
        StageError: ``BadTrainingValue``.
    """
    from transformers import get_scheduler

    if inputs.scheduler.startswith("constant") and inputs.scheduler_args:
        raise _bad_schedule(inputs, "it takes no arguments")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=inputs.learning_rate)
    try:
        schedule = get_scheduler(inputs.scheduler, optimizer, inputs.warmup_steps, steps, dict(inputs.scheduler_args))
        rates = [float(factor(step)) for factor in schedule.lr_lambdas for step in (0, 1, steps // 2, steps - 1, steps)]
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise _bad_schedule(inputs, str(error)) from error
    if not np.isfinite(rates).all():
        raise _bad_schedule(inputs, "the learning rate becomes infinite or undefined")


def _bad_schedule(inputs: TrainingInputs, why: str) -> StageError:
    return StageError(
        reasons.BAD_TRAINING_VALUE,
        f"training.schedulerArgs: {dict(inputs.scheduler_args)} cannot be used with training.scheduler {inputs.scheduler}, {why}; correct them.",
    )


def _require_number(value: float, name: str, step: int) -> None:
    if not np.isfinite(value):
        raise StageError(
            reasons.NOT_A_NUMBER,
            f"training: the {name} became {value} in step {step}; lower training.learningRate, or set training.warmupSteps.",
        )
