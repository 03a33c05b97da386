"""Headers of the model's safetensors files, with a check for Git LFS pointers."""

from __future__ import annotations

from pathlib import Path

from finetune_stages.sdk import safetensors_header
from finetune_stages.sdk.safetensors_header import BYTES, FLOATS, Tensor, is_quantized

from .files import require_no_pointer

__all__ = ["BYTES", "FLOATS", "Tensor", "is_quantized", "read_header"]


def read_header(path: Path, model: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name: see :func:`finetune_stages.sdk.safetensors_header.read_header`.

    Raises:
        StageError: ``ModelCorrupt``, ``ModelIncomplete``: the file is a Git LFS pointer.
    """
    require_no_pointer(path, model)
    return safetensors_header.read_header(path, model)
