"""Writing of a fine-tuned model with the names, dtypes and other files of its base model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .pretrained import Pretrained

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SHARD = "5GB"
"""Largest size of a weight file, as the hub recommends."""


def dtype_of(base: Pretrained) -> torch.dtype:
    """Return the dtype of most of the base model's weights."""
    return _DTYPES[base.dtype]


def write_model(directory: Path, model: Any, state: Iterable[tuple[str, Tensor]], base: Pretrained) -> None:
    """Write the weights in ``state`` as a directory that ``from_pretrained`` opens.

    ``state`` has the names and shapes of an ordinary model of ``model``'s class, which maps them to names in files.
    """
    from transformers import GenerationConfig

    generation = model.generation_config
    # A base model's generation settings are copied with its other files; transformers cannot write some that it reads.
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(directory, state_dict=_as_saved(state, model, base), max_shard_size=_SHARD)
    finally:
        model.generation_config = generation
    base.copy_companions(directory, _has_own_head(model))
    for path in directory.rglob("*"):  # safetensors creates files that only their owner can read
        path.chmod(0o775 if path.is_dir() else 0o664)


def _has_own_head(model: Any) -> bool:
    """Return whether embeddings and output layer are two matrices."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or not hasattr(head, "weight"):
        return False
    return bool(head.weight.data_ptr() != embeddings.weight.data_ptr())


def _as_saved(state: Iterable[tuple[str, Tensor]], model: Any, base: Pretrained) -> dict[str, Tensor]:
    """Return the tensors in CPU memory, in the dtypes of the base model; names that share a parameter still share it."""
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    shared: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
    saved = {}
    for name, tensor in state:
        known = base.tensors.get(name)
        dtype = _DTYPES.get(known.dtype if known else base.dtype, tensor.dtype) if tensor.is_floating_point() else tensor.dtype
        key = (tensor.data_ptr(), tensor.shape, dtype)
        saved[name] = shared[key] if key in shared else tensor.to("cpu", dtype)
        if tensor.data_ptr() in parameters:  # the memory of a merged weight is reused, so its address identifies nothing
            shared[key] = saved[name]
    return saved
