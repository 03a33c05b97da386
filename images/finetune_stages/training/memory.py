"""Estimates of memory and disk space before training: checks that a training fits, and the choice of the micro-batch."""

from __future__ import annotations

import re
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, OsftInputs, TrainingInputs
from finetune_stages.sdk import StageError
from finetune_stages.sdk.gpus import on_gpu

from .machine import available_memory, free_room, readable
from .pretrained import Pretrained
from .processes import Processes
from .quantization import BYTES, quantization
from .targets import is_target

_NUMBER = 4
"""Bytes of a trained weight: always 32 bits, because 16 bits are too coarse for the steps of a small learning rate."""
_TRAINED = 4 * _NUMBER
"""Bytes of a trained parameter: its value, its gradient, and two moments of Adam."""
_SHARE = 0.5
"""Share of the remaining memory for a forward pass; a margin, because the numbers below are estimates."""
_ROOM_TO_SPARE = 64 << 20
_UNQUANTIZED = re.compile(r"embed|wte|lm_head")


def weights_and_optimizer(base: Pretrained, inputs: TrainingInputs, bf16: bool = False) -> int:
    """Return the minimum bytes of one process: weights, gradients and optimizer, without activations.

    ``bf16``: the device computes in 16 bits, so that frozen 16-bit weights are kept (:func:`frozen_in_16_bits`).
    """
    if inputs.algorithm == "lora":
        return _frozen_bytes(base, inputs, bf16) + adapter_parameters(base, inputs) * _TRAINED
    if inputs.algorithm == "sft":
        return base.parameters * _TRAINED
    osft = inputs.osft or OsftInputs()
    return sum(_osft_bytes(name, tensor.shape, osft) for name, tensor in base.tensors.items())


def frozen_in_16_bits(base: Pretrained, inputs: TrainingInputs, bf16: bool) -> bool:
    """Return whether the weights are kept in bfloat16: they are frozen, have 16 bits, and the device computes in bfloat16."""
    return inputs.algorithm == "lora" and bf16 and (base.dtype == "BF16" or quantization(inputs) is not None)


def adapter_parameters(base: Pretrained, inputs: TrainingInputs) -> int:
    """Return the number of LoRA parameters, estimated from the weights' names."""
    lora = inputs.lora or LoraInputs()
    return sum(
        lora.rank * sum(tensor.shape)
        for name, tensor in base.tensors.items()
        if _is_target_matrix(name, tensor.shape, lora.target_modules)
        and ".experts." not in name  # in memory those are not layers
    )


def require_memory(base: Pretrained, inputs: TrainingInputs, processes: Processes) -> int | None:
    """Check that weights and optimizer fit, and return the bytes left for activations; ``None`` if that is unknown.

    Raises:
        StageError: ``OutOfMemoryGPU`` or ``OutOfMemoryHost``.
    """
    import torch

    need = weights_and_optimizer(base, inputs, computes_in_bf16())
    if on_gpu():
        left, device, reason = int(torch.cuda.mem_get_info()[0]), "the GPU", reasons.GPU_OUT_OF_MEMORY
        advice = f"use a GPU with more memory, a smaller model, or {_thriftier(inputs)}"
        if quantization(inputs):
            require_host_memory(2 * base.size, "the merge of the adapter")
    else:
        memory = available_memory()
        if memory is None:
            return None
        left, device, reason = memory // processes.per_node, "this pod", reasons.HOST_OUT_OF_MEMORY
        advice = "raise training.resources.memory, or use a smaller model"
    if need > left:
        raise StageError(
            reason,
            f"training: weights, gradients and optimizer of {base.parameters:,} parameters need {readable(need)} in each of"
            f" {processes.per_node} processes, and {device} has {readable(left)} left for each; {advice}.",
        )
    return left - need


def require_host_memory(need: int, what: str) -> None:
    """Check that copies of the model fit into CPU memory.

    Args:
        need: bytes.
        what: the work that needs them.

    Raises:
        StageError: ``OutOfMemoryHost``.
    """
    left = available_memory()
    if left is not None and need > left:
        raise StageError(
            reasons.HOST_OUT_OF_MEMORY,
            f"training.resources.memory: {what} needs {readable(need)} for copies of the unquantized weights, and this pod has"
            f" {readable(left)} left; raise it.",
        )


def _thriftier(inputs: TrainingInputs) -> str:
    if inputs.algorithm != "lora":
        return "algorithm lora"
    return "a smaller training.lora.rank" if quantization(inputs) == "4bit" else "training.lora.quantization: 4bit"


def computes_in_bf16() -> bool:
    """Return whether this process computes on a GPU with native bfloat16."""
    if not on_gpu():
        return False
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def require_room(directory: Path, base: Pretrained, inputs: TrainingInputs, unpublished: int = 0) -> None:
    """Check that the files to write fit the volume; ``unpublished`` are the bytes that an engine writes in addition.

    Raises:
        StageError: ``WorkspaceFull``.
    """
    kept = min(inputs.epochs, inputs.checkpoints.keep or inputs.epochs) + 1 if inputs.checkpoints.per_epoch else 0
    adapter = adapter_parameters(base, inputs) * _NUMBER if inputs.algorithm == "lora" else 0
    need, left = base.size * (1 + kept) + unpublished + adapter + _ROOM_TO_SPARE, free_room(directory)
    if need > left:
        models = f"the model and {kept} checkpoints take" if kept else "the model takes"
        raise StageError(
            reasons.WORKSPACE_FULL,
            f"storage.size: the volume has {readable(left)} free, and {models} {readable(need)}; raise it, delete old runs,"
            " or lower training.checkpoints.keep.",
        )


def tokens_that_fit(base: Pretrained, inputs: TrainingInputs, left: int | None, builds_logits: bool) -> int | None:
    """Return the tokens of a forward pass whose activations fit a share of ``left`` bytes; ``None`` if that is unknown.

    Per token and layer a decoder stores about nine vectors of the hidden width and four of the MLP's for the backward pass, or one with
    gradient checkpointing. If the trainer builds the logits, these, their logarithms and gradients count, too.
    """
    if left is None:
        return None
    hidden = base.text_config("hidden_size", 4096)
    layers = base.text_config("num_hidden_layers", 32)
    width = base.text_config("intermediate_size", 4 * hidden)
    whole = 9 * hidden + 4 * width
    kept = hidden * layers + whole if inputs.gradient_checkpointing else whole * layers
    logits = 3 * base.text_config("vocab_size", 32_000) if builds_logits else 0
    return int(_SHARE * left / (_NUMBER * (kept + logits)))


def rows_of_a_process(inputs: TrainingInputs, world: int) -> int:
    """Return the rows of each process per optimizer step.

    Raises:
        StageError: ``BadTrainingValue``: the batch sizes and the number of processes do not divide.
    """
    effective, micro = inputs.effective_batch_size, inputs.micro_batch_size
    if effective % world:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.effectiveBatchSize: {effective} is not divisible by {world} processes; use a multiple of {world}.",
        )
    share = effective // world
    if micro is not None and share % micro and not packs(inputs):
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.microBatchSize: {micro} does not divide the {share} rows of each of {world} processes per step"
            f" (training.effectiveBatchSize {effective}); use a divisor of {share}.",
        )
    return share


def packs(inputs: TrainingInputs) -> bool:
    """Return whether rows are packed into sequences; a micro-batch is then counted in sequences, not in rows."""
    return inputs.algorithm == "lora" and (inputs.lora or LoraInputs()).packing


def micro_batch_size(inputs: TrainingInputs, world: int, longest: int, tokens_in_memory: int | None) -> int:
    """Return the rows per forward pass: the user's value, else the largest divisor of a process's share of a step that fits.

    ``longest`` is the longest row in tokens, ``tokens_in_memory`` the result of :func:`tokens_that_fit`.
    """
    share = rows_of_a_process(inputs, world)
    if inputs.micro_batch_size is not None:
        return inputs.micro_batch_size
    tokens = inputs.max_tokens_per_gpu if tokens_in_memory is None else min(inputs.max_tokens_per_gpu, tokens_in_memory)
    return max((size for size in range(1, share + 1) if share % size == 0 and size * longest <= tokens), default=1)


def packed_sequences(inputs: TrainingInputs, longest: int, tokens_in_memory: int | None) -> tuple[int, int]:
    """Return the tokens per packed sequence and the sequences per forward pass: the user's value, else as many as fit."""
    tokens = inputs.max_tokens_per_gpu if tokens_in_memory is None else min(inputs.max_tokens_per_gpu, tokens_in_memory)
    capacity = max(longest, min(inputs.max_seq_len, tokens))
    return capacity, inputs.micro_batch_size or max(1, tokens // capacity)


def _frozen_bytes(base: Pretrained, inputs: TrainingInputs, bf16: bool) -> int:
    """Return the bytes of the frozen base model. Quantization does not cover embeddings, output layer and vectors."""
    whole = 2 if frozen_in_16_bits(base, inputs, bf16) else _NUMBER
    kind = quantization(inputs)
    if kind is None:
        return base.parameters * whole
    kept = sum(tensor.parameters for name, tensor in base.tensors.items() if len(tensor.shape) < 2 or _UNQUANTIZED.search(name))
    return kept * whole + int((base.parameters - kept) * BYTES[kind])


def _is_target_matrix(name: str, shape: tuple[int, ...], patterns: tuple[str, ...]) -> bool:
    return len(shape) == 2 and name.endswith(".weight") and is_target(name, patterns)


def _osft_bytes(name: str, shape: tuple[int, ...], osft: OsftInputs) -> int:
    numbers = 1
    for length in shape:
        numbers *= length
    if _is_target_matrix(name, shape, osft.target_patterns):
        free = int(min(shape) * osft.unfreeze_rank_ratio)
        factors = free * (shape[0] + shape[1] + 1)
        return numbers * _NUMBER + factors * (_TRAINED + _NUMBER)  # the trained factors and their initial values
    return numbers * (_TRAINED if osft.trainable == "all" else _NUMBER)
