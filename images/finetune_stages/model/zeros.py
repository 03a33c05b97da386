"""Detection of weights that are only zeros, as a failed conversion or an interrupted write leaves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .headers import FLOATS, Tensor

_SAMPLE = 512
"""Bytes that are read at the beginning, the middle and the end of a matrix before all of it is read."""
_PIECE = 1 << 20


def zero_matrices(files: Mapping[str, Path], tensors: Mapping[str, Tensor], model: str) -> str | None:
    """Return a warning about matrices that are only zeros; ``None`` if there are none. Of other matrices, a sample is read.

    Some methods add layers with a matrix of zeros on purpose, so that the model computes the same before training.

    Raises:
        StageError: ``ModelCorrupt``: all matrices are only zeros.
    """
    matrices = [name for name, tensor in tensors.items() if tensor.dtype in FLOATS and len(tensor.shape) > 1 and tensor.size]
    zero = [name for name in matrices if _is_zero(files[name], tensors[name])]
    if not zero:
        return None
    if len(zero) == len(matrices):
        raise StageError(
            reasons.MODEL_CORRUPT, f"{model}: all weights are zero ({zero[0]}, for example); download or save the model again."
        )
    return f"model.uri: {len(zero):,} of {len(matrices):,} weight matrices have only zeros; the first is {min(zero)[:100]}."


def _is_zero(file: Path, tensor: Tensor) -> bool:
    with file.open("rb", buffering=0) as stream:
        for start in (0, tensor.size // 2, max(0, tensor.size - _SAMPLE)):
            stream.seek(tensor.begin + start)
            if any(stream.read(min(_SAMPLE, tensor.size - start))):
                return False
        return not any(map(any, _pieces(file, tensor)))


def _pieces(file: Path, tensor: Tensor) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(tensor.begin)
        left = tensor.size
        while left > 0 and (piece := stream.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
