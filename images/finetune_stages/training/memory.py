"""What a training needs, reckoned before it starts: to refuse with numbers what cannot fit, and to choose the micro-batch."""

from __future__ import annotations

import re
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, OsftInputs, TrainingInputs
from finetune_stages.sdk import StageError

from .machine import available_memory, free_room, readable
from .pretrained import Pretrained
from .processes import Processes
from .quantisation import BYTES, quantisation
from .targets import is_target

_NUMBER = 4
"""Bytes of a weight that is trained: 32 bits, whatever the file has, because 16 cannot hold the steps of a small learning rate."""
_TRAINED = 4 * _NUMBER
"""Bytes of a trained number: itself, its gradient, and Adam's two."""
_SHARE = 0.5
"""Share of the memory that is left which a forward pass may fill: what is below is an estimate."""
_ROOM_TO_SPARE = 64 << 20
_UNQUANTISED = re.compile(r"embed|wte|lm_head")


def weights_and_optimizer(base: Pretrained, inputs: TrainingInputs, bf16: bool = False) -> int:
    """Return bytes that one process needs at the least: weights, gradients and optimizer, without a single activation.

    ``bf16``: the device computes in 16 bits, so that frozen weights of 16 bits stay so (:func:`frozen_in_16_bits`).
    """
    if inputs.algorithm == "lora":
        return _frozen_bytes(base, inputs, bf16) + adapter_parameters(base, inputs) * _TRAINED
    if inputs.algorithm == "sft" or inputs.osft is None:
        return base.parameters * _TRAINED
    return sum(_osft_bytes(name, tensor.shape, inputs.osft) for name, tensor in base.tensors.items())


def frozen_in_16_bits(base: Pretrained, inputs: TrainingInputs, bf16: bool) -> bool:
    """Return whether the weights stay in bfloat16: they are not trained, have no more bits, and the device computes with those."""
    return inputs.algorithm == "lora" and bf16 and (base.dtype == "BF16" or quantisation(inputs) is not None)


def adapter_parameters(base: Pretrained, inputs: TrainingInputs) -> int:
    """Numbers in LoRA's adapters, as far as the weights' names tell which get one."""
    lora = inputs.lora or LoraInputs()
    return sum(
        lora.rank * sum(tensor.shape)
        for name, tensor in base.tensors.items()
        if _is_target_matrix(name, tensor.shape, lora.target_modules) and ".experts." not in name  # in memory those are no layers
    )


def require_memory(base: Pretrained, inputs: TrainingInputs, processes: Processes) -> int | None:
    """Check that weights and optimizer fit; what is left for activations, in bytes, or ``None`` if that is not known.

    Raises:
        StageError: ``OutOfMemoryGPU`` or ``OutOfMemoryHost``.
    """
    import torch

    need = weights_and_optimizer(base, inputs, computes_in_bf16())
    if torch.cuda.is_available():
        left, place, reason = int(torch.cuda.mem_get_info()[0]), "the GPU", reasons.GPU_OUT_OF_MEMORY
        advice = f"use a GPU with more memory, a smaller model, or {_thriftier(inputs)}"
        _require_memory_to_merge(base, inputs)
    else:
        memory = available_memory()
        if memory is None:
            return None
        left, place, reason = memory // processes.per_node, "this pod", reasons.HOST_OUT_OF_MEMORY
        advice = "raise training.resources.memory, or use a smaller model"
    if need > left:
        raise StageError(
            reason,
            f"Weights, gradients and optimizer of {base.parameters:,} parameters need {readable(need)} in each of"
            f" {processes.per_node} processes, and {place} has {readable(left)} left for each: {advice}.",
        )
    return left - need


def _require_memory_to_merge(base: Pretrained, inputs: TrainingInputs) -> None:
    """An adapter on quantised weights is merged into the unquantised ones, which are in ordinary memory for that, twice."""
    need, left = 2 * base.size, available_memory()
    if quantisation(inputs) and left is not None and need > left:
        raise StageError(
            reasons.HOST_OUT_OF_MEMORY,
            f"To merge the adapter at the end, the base model without quantisation takes {readable(need)} of memory, and this pod has"
            f" {readable(left)} left: raise training.resources.memory.",
        )


def _thriftier(inputs: TrainingInputs) -> str:
    if inputs.algorithm != "lora":
        return "algorithm lora"
    return "a smaller training.lora.rank" if quantisation(inputs) == "4bit" else "training.lora.quantization: 4bit"


def computes_in_bf16() -> bool:
    """Return whether there is a GPU that multiplies in bfloat16 by itself."""
    import torch

    return torch.cuda.is_available() and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def require_room(directory: Path, base: Pretrained, inputs: TrainingInputs) -> None:
    """Check that the models to write fit the volume.

    Raises:
        StageError: ``WorkspaceFull``.
    """
    kept = min(inputs.epochs, inputs.checkpoints.keep or inputs.epochs) + 1 if inputs.checkpoints.per_epoch else 0
    adapter = adapter_parameters(base, inputs) * _NUMBER if inputs.algorithm == "lora" else 0
    need, left = base.size * (1 + kept) + adapter + _ROOM_TO_SPARE, free_room(directory)
    if need > left:
        models = f"the model and {kept} checkpoints take" if kept else "the model takes"
        raise StageError(
            reasons.WORKSPACE_FULL,
            f"On the workspace volume {readable(left)} are free, and {models} {readable(need)}: raise storage.size, delete old runs"
            " from it, or keep fewer checkpoints (training.checkpoints.keep).",
        )


def tokens_that_fit(base: Pretrained, inputs: TrainingInputs, left: int | None, on_gpu: bool) -> int | None:
    """Tokens of a forward pass whose activations fit a share of ``left`` bytes; ``None`` if that is not known.

    Per token and layer a decoder keeps about nine vectors of the hidden and four of the MLP's width for the way back, or one with
    gradient checkpointing. Logits count where no fused kernel goes over them in pieces: they, their logarithms and gradients.
    """
    if left is None:
        return None
    hidden = base.text_config("hidden_size", 4096)
    layers = base.text_config("num_hidden_layers", 32)
    width = base.text_config("intermediate_size", 4 * hidden)
    whole = 9 * hidden + 4 * width
    kept = hidden * layers + whole if inputs.gradient_checkpointing else whole * layers
    logits = 0 if on_gpu else 3 * base.text_config("vocab_size", 32_000)
    return int(_SHARE * left / (_NUMBER * (kept + logits)))


def rows_of_a_process(inputs: TrainingInputs, world: int) -> int:
    """Return rows that each process has of an optimizer step.

    Raises:
        StageError: ``BadTrainingValue``: the batch sizes and the number of processes do not divide.
    """
    effective, micro = inputs.effective_batch_size, inputs.micro_batch_size
    if effective % world:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.effectiveBatchSize is {effective}, which {world} processes cannot share evenly: use a multiple of {world}.",
        )
    share = effective // world
    if micro is not None and share % micro and not packs(inputs):
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.microBatchSize is {micro}, which does not divide the {share} rows that each of {world} processes has of a step"
            f" (training.effectiveBatchSize {effective}): use a divisor of {share}.",
        )
    return share


def packs(inputs: TrainingInputs) -> bool:
    """Return whether several rows go into one sequence; a micro-batch is counted in sequences then, not in rows."""
    return inputs.algorithm == "lora" and (inputs.lora or LoraInputs()).packing


def micro_batch_size(inputs: TrainingInputs, world: int, longest: int, tokens_in_memory: int | None) -> int:
    """Return rows of a forward pass: what the user says, else the most that divide a process's share of a step and fit.

    ``longest`` is the longest row in tokens, ``tokens_in_memory`` what :func:`tokens_that_fit` says.
    """
    share = rows_of_a_process(inputs, world)
    if inputs.micro_batch_size is not None:
        return inputs.micro_batch_size
    tokens = inputs.max_tokens_per_gpu if tokens_in_memory is None else min(inputs.max_tokens_per_gpu, tokens_in_memory)
    return max((size for size in range(1, share + 1) if share % size == 0 and size * longest <= tokens), default=1)


def packed_sequences(inputs: TrainingInputs, longest: int, tokens_in_memory: int | None) -> tuple[int, int]:
    """Tokens of a sequence of packed rows, and how many sequences a forward pass takes: what the user says, else all that fit."""
    tokens = inputs.max_tokens_per_gpu if tokens_in_memory is None else min(inputs.max_tokens_per_gpu, tokens_in_memory)
    capacity = max(longest, min(inputs.max_seq_len, tokens))
    return capacity, inputs.micro_batch_size or max(1, tokens // capacity)


def _frozen_bytes(base: Pretrained, inputs: TrainingInputs, bf16: bool) -> int:
    """Return bytes of the base model as LoRA holds it. Of a quantised one, embeddings, output layer and vectors stay as they are."""
    whole = 2 if frozen_in_16_bits(base, inputs, bf16) else _NUMBER
    wanted = quantisation(inputs)
    if wanted is None:
        return base.parameters * whole
    kept = sum(tensor.parameters for name, tensor in base.tensors.items() if len(tensor.shape) < 2 or _UNQUANTISED.search(name))
    return kept * whole + int((base.parameters - kept) * BYTES[wanted])


def _is_target_matrix(name: str, shape: tuple[int, ...], patterns: tuple[str, ...]) -> bool:
    return len(shape) == 2 and name.endswith(".weight") and is_target(name, patterns)


def _osft_bytes(name: str, shape: tuple[int, ...], osft: OsftInputs) -> int:
    numbers = 1
    for length in shape:
        numbers *= length
    if _is_target_matrix(name, shape, osft.target_patterns):
        free = int(min(shape) * osft.unfreeze_rank_ratio)
        factors = free * (shape[0] + shape[1] + 1)
        return numbers * _NUMBER + factors * (_TRAINED + _NUMBER)  # beside the trained factors is what they were
    return numbers * (_TRAINED if osft.trainable == "all" else _NUMBER)
