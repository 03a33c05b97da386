"""Headers of safetensors files: names, types, shapes and byte ranges of the tensors. No tensor is read.

Standard library only: stage *model* reads them in an image without PyTorch, and stage *training* before it imports anything large.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract import reasons

from .fault import StageError

_HEADER_LIMIT = 100_000_000
"""Largest size of a header in bytes, as in the format's own library."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number by the format's name for its type, without the types of quantized weights."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that can be trained. Other types of :data:`BYTES` are those of masks, positions and counters."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file: the format's name for its type, its shape, and its bytes in the file, from ``begin`` up to ``end``."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin


def read_header(path: Path, model: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name. ``model`` is the name of the model in messages.

    The file has 8 bytes with the header's length (little endian), the header as JSON, and the tensors' bytes.
    Source: https://github.com/huggingface/safetensors#format. The file's size must match the header.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    try:
        size = path.stat().st_size
        start, stated = _read_stated(path, size)
        tensors = {name: _tensor(entry, start) for name, entry in stated.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise _corrupt(path, model, f"it is not a safetensors file ({error})") from error
    expected = max((tensor.end for tensor in tensors.values()), default=start)
    if size != expected:
        raise _corrupt(path, model, f"it has {size:,} bytes and its header claims {expected:,}")
    _require_contiguous(path, model, tensors, start)
    for name, tensor in tensors.items():
        wrong = tensor.dtype in BYTES and tensor.size != tensor.parameters * BYTES[tensor.dtype]
        if wrong or min(tensor.shape, default=0) < 0:
            raise _corrupt(path, model, f"{name} of shape {list(tensor.shape)} has {tensor.size:,} bytes")
    return tensors


def is_quantized(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor is a quantized weight: of a type that only quantization uses, or a weight of integers."""
    is_weight = name.rpartition(".")[2].endswith(("weight", "_proj"))
    return tensor.dtype not in BYTES or (is_weight and tensor.dtype not in FLOATS)


def _require_contiguous(path: Path, model: str, tensors: dict[str, Tensor], start: int) -> None:
    """Check that the tensors cover the file without a gap or an overlap, as the format's own library does.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    position = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position or tensor.end < tensor.begin:
            where = f"{name} is at bytes {tensor.begin:,} to {tensor.end:,}, and the tensor before it ends at {position:,}"
            raise _corrupt(path, model, where)
        position = tensor.end


def _read_stated(path: Path, size: int) -> tuple[int, dict[str, Any]]:
    """Return the offset of the tensors' bytes in the file, and the header's entry for each tensor."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(size - 8, _HEADER_LIMIT):
            raise ValueError(f"its header claims {length:,} bytes")
        stated: dict[str, Any] = json.loads(stream.read(length))
    stated.pop("__metadata__", None)
    return 8 + length, stated


def _tensor(entry: dict[str, Any], start: int) -> Tensor:
    begin, end = entry["data_offsets"]
    return Tensor(entry["dtype"], tuple(map(int, entry["shape"])), start + begin, start + end)


def _corrupt(path: Path, model: str, detail: str) -> StageError:
    return StageError(reasons.MODEL_CORRUPT, f"{model}: {path.name} is damaged: {detail}; download or save the model again.")
