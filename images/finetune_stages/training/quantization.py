"""Frozen 4-bit or 8-bit weights (QLoRA, arXiv 2305.14314): requirements, size and configuration."""

from __future__ import annotations

from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, TrainingInputs
from finetune_stages.sdk import StageError
from finetune_stages.sdk.gpus import on_gpu

BYTES = {"4bit": 0.5, "8bit": 1.0}
"""Bytes of a quantized weight; the scales take a few percent more."""


def quantization(inputs: TrainingInputs) -> str | None:
    """Return ``4bit``, ``8bit``, or ``None``."""
    kind = (inputs.lora or LoraInputs()).quantization if inputs.algorithm == "lora" else "none"
    return None if kind == "none" else kind


def require_device(inputs: TrainingInputs) -> None:
    """Check that there is a GPU for quantized weights.

    Raises:
        StageError: ``NoGPU``.
    """
    kind = quantization(inputs)
    if kind and not on_gpu():
        raise StageError(
            reasons.NO_GPU,
            f"training.lora.quantization: {kind} requires an NVIDIA GPU, and this process has none; set it to none, or request"
            " a GPU with training.gpusPerWorker.",
        )


def configuration(kind: str, bf16: bool) -> Any:
    """Return transformers' configuration: NF4 with doubly quantized scales, as in the paper, or LLM.int8() (arXiv 2208.07339)."""
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )  # fmt: skip
