"""Frozen weights of 4 or 8 bits (QLoRA, arXiv 2305.14314): what they need, and how they are asked for."""

from __future__ import annotations

from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs, TrainingInputs
from finetune_stages.sdk import StageError

from .processes import gpus

BYTES = {"4bit": 0.5, "8bit": 1.0}
"""Bytes of a quantised weight; the scales beside the weights take a few percent more."""


def quantisation(inputs: TrainingInputs) -> str | None:
    """Return ``4bit``, ``8bit``, or ``None``."""
    wanted = (inputs.lora or LoraInputs()).quantization if inputs.algorithm == "lora" else "none"
    return None if wanted == "none" else wanted


def require_device(inputs: TrainingInputs) -> None:
    """Check that quantised weights find a GPU.

    Raises:
        StageError: ``NoGPU``.
    """
    wanted = quantisation(inputs)
    if wanted and not gpus():
        raise StageError(
            reasons.NO_GPU,
            f"training.lora.quantization is {wanted}, which needs an NVIDIA GPU, and this process sees none: set it to none, or ask"
            " for a GPU (training.gpusPerWorker).",
        )


def configuration(wanted: str, bf16: bool) -> Any:
    """Return what transformers is told: NF4 with doubly quantised scales, as in the paper, or LLM.int8() (arXiv 2208.07339)."""
    import torch
    from transformers import BitsAndBytesConfig

    if wanted == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )  # fmt: skip
