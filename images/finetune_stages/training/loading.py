"""The base model's weights as transformers loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.loading import loading

logging.disable_progress_bar()


def load_model(
    directory: Path, trust_remote_code: bool, gpu: int | None, dtype: torch.dtype = torch.float32, quantisation: Any = None
) -> tuple[Any, set[str]]:
    """Return the model, on this GPU where there are any, and the names in its files that its class does not read.

    It goes straight onto the GPU (``None``: into ordinary memory), because as many copies as there are processes may be more than
    the machine's own memory holds. ``dtype`` is that of the weights which ``quantisation``, transformers' configuration, leaves.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, or ``ModelIncomplete``: weights are missing.
    """
    device_map = {"": gpu} if gpu is not None and torch.cuda.is_available() else None
    with loading():
        model, report = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, device_map=device_map, quantization_config=quantisation, output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    if report["missing_keys"]:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"model.uri: the files have no weights for {', '.join(sorted(report['missing_keys'])[:3])}; set a model for text generation,"
            " with all its files.",
        )
    return model, set(report["unexpected_keys"])
