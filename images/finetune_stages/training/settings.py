"""Settings of the trainer: the optimizer, the learning rate's schedule, and the devices."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, get_scheduler

from finetune_contract import reasons
from finetune_contract.documents import TrainingInputs
from finetune_stages.sdk import StageError
from finetune_stages.sdk.gpus import on_gpu

from .batches import Plan
from .memory import computes_in_bf16
from .processes import timeout

_POINTS = 200
"""Steps whose learning rate is checked before training."""


def settings(kind: type[Any], inputs: TrainingInputs, plan: Plan, folder: Path, **more: Any) -> Any:
    """Return the trainer's settings. The optimizer's numbers are those of Training Hub: betas .9 and .95, no decay, clipping at 1.

    Args:
        kind: ``TrainingArguments`` or a subclass, which takes ``more``.
        inputs: values of the document.
        plan: the batches.
        folder: for the trainer's own files.
        more: additional settings.
    """
    gpu = on_gpu()
    return kind(
        output_dir=str(folder), save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1,
        logging_nan_inf_filter=False, optim="adamw_torch_fused", average_tokens_across_devices=True,
        num_train_epochs=inputs.epochs, per_device_train_batch_size=plan.micro, gradient_accumulation_steps=plan.accumulation,
        learning_rate=inputs.learning_rate, lr_scheduler_type=inputs.scheduler, warmup_steps=inputs.warmup_steps,
        lr_scheduler_kwargs=dict(inputs.scheduler_args), adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0,
        seed=inputs.seed, use_cpu=not gpu, bf16=computes_in_bf16(), dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False, ddp_broadcast_buffers=False, ddp_timeout=int(timeout().total_seconds()),
        ddp_backend=None if gpu else "gloo" if plan.world > 1 else None, **_recomputation(inputs.gradient_checkpointing), **more,
    )  # fmt: skip


def _recomputation(recompute: bool) -> dict[str, Any]:
    """Return the setting that recomputes activations in the backward pass. transformers 5 has renamed it."""
    if "activation_checkpointing" in {field.name for field in fields(TrainingArguments)}:
        return {"activation_checkpointing": recompute}
    # Reentrant checkpoints, the default of transformers 4, lose the gradients of adapters on frozen weights.
    return {"gradient_checkpointing": recompute, "gradient_checkpointing_kwargs": {"use_reentrant": False}}


def require_schedule(inputs: TrainingInputs, steps: int) -> None:
    """Check that the learning rate's schedule exists and accepts its arguments.

    Raises:
        StageError: ``BadTrainingValue``.
    """
    if inputs.scheduler.startswith("constant") and inputs.scheduler_args:
        raise _bad_schedule(inputs, "it takes no arguments")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=inputs.learning_rate)
    if any(name.startswith("min_lr") and float(value) < 0 for name, value in inputs.scheduler_args.items()):
        raise _bad_schedule(inputs, "the smallest learning rate is negative")  # some versions clamp it at 0
    points = sorted({1, *np.linspace(0, steps, _POINTS).astype(int).tolist()})  # the rate after the last step is computed, too
    try:
        schedule = get_scheduler(inputs.scheduler, optimizer, inputs.warmup_steps, steps, dict(inputs.scheduler_args))
        rates = [float(factor(step)) for factor in schedule.lr_lambdas for step in points]
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise _bad_schedule(inputs, _cause(error)) from error
    if not np.isfinite(rates).all():
        raise _bad_schedule(inputs, "the learning rate becomes infinite or undefined")
    if min(rates) < 0:
        raise _bad_schedule(inputs, "the learning rate becomes negative")
    if not any(rate for rate, step in zip(rates, points, strict=True) if step < steps):
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.warmupSteps: it is {inputs.warmup_steps:,} and the training has {steps:,} steps, so the learning rate is always 0; lower it.",
        )


def _cause(error: Exception) -> str:
    """Return what is wrong with the arguments of a schedule, as a clause."""
    if isinstance(error, AttributeError):
        return "the schedule depends on measurements during training"
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        return f"it has no argument {unknown[1]}"
    return "they divide by zero" if isinstance(error, ZeroDivisionError) else str(error)


def _bad_schedule(inputs: TrainingInputs, why: str) -> StageError:
    return StageError(
        reasons.BAD_TRAINING_VALUE,
        f"training.schedulerArgs: {dict(inputs.scheduler_args)} cannot be used with training.scheduler {inputs.scheduler}: {why}; correct them.",
    )
