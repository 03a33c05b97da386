"""Loading of the base model with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.gpus import on_gpu
from finetune_stages.sdk.loading import loading

logging.disable_progress_bar()


def load_model(
    directory: Path, trust_remote_code: bool, gpu: int | None, dtype: torch.dtype = torch.float32, quantization: Any = None
) -> tuple[Any, set[str]]:
    """Return the model, on this GPU if there is one, and the names in its files that its class does not read.

    It is loaded directly onto the GPU (``None``: into CPU memory), because one copy per process may exceed the machine's memory.
    ``dtype`` applies to the weights that ``quantization``, transformers' configuration, does not cover.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, or ``ModelIncomplete``: weights are missing.
    """
    device_map = {"": gpu} if gpu is not None and on_gpu() else None
    with loading():
        model, report = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, device_map=device_map, quantization_config=quantization, output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    if report["missing_keys"]:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"model.uri: the files have no weights for {', '.join(sorted(report['missing_keys'])[:3])}; set a model for text generation,"
            " with all its files.",
        )
    return model, set(report["unexpected_keys"])
