"""Infinite and undefined numbers in weights, found while a file is read for its digest.

Such a weight makes every loss undefined: training would end after its first step, on a GPU that was waited for. The standard library
is enough: the highest byte of a number tells almost always that it is finite, and a byte is looked for faster than a digest is computed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .headers import BYTES, Tensor, read_header

_LARGE = {"F64": (0x7F, 0xFF), "F32": (0x7F, 0xFF), "BF16": (0x7F, 0xFF), "F16": (*range(0x7C, 0x80), *range(0xFC, 0x100))}
"""The highest bytes that infinite and undefined numbers of a type can have."""
_FORMATS = {"F64": "d", "F32": "f", "BF16": "f", "F16": "e"}
_MASKS = ("masked_bias", "attn_mask", "causal_mask")
"""Ends of names of tensors that are no weights and may hold minus infinity: some files hold the attention's mask, too."""


def has_not_finite(data: bytes, dtype: str) -> bool:
    """Return whether one of the numbers in ``data``, little endian and of the format's type ``dtype``, is infinite or undefined."""
    width = BYTES[dtype]
    highest = data[width - 1 :: width]
    if not any(byte.to_bytes() in highest for byte in _LARGE[dtype]):
        return False
    if dtype == "BF16":  # the upper half of a number of 32 bits
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        data, width = bytes(wide), 4
    return not all(map(isfinite, struct.unpack(f"<{len(data) // width}{_FORMATS[dtype]}", data)))


@dataclass
class FiniteWeights:
    """Reads a safetensors file piece by piece and notes the first tensor with a number that is infinite or undefined.

    Attributes:
        found: name of that tensor.
    """

    _tensors: list[tuple[str, Tensor]]
    found: str | None = None
    _place: int = 0
    _next: int = 0
    _rest: bytes = b""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> FiniteWeights:
        """Return a reader of a file with these tensors."""
        weights = [(name, tensor) for name, tensor in tensors.items() if tensor.dtype in _FORMATS and not name.endswith(_MASKS)]
        return cls(sorted(weights, key=lambda weight: weight[1].begin))

    def __call__(self, piece: bytes) -> None:
        """Take the file's next bytes."""
        start, self._place = self._place, self._place + len(piece)
        while self.found is None and self._next < len(self._tensors):
            name, tensor = self._tensors[self._next]
            if tensor.begin >= self._place:
                return
            data = self._rest + piece[max(0, tensor.begin - start) : tensor.end - start]
            whole = len(data) - len(data) % BYTES[tensor.dtype]
            self._rest = data[whole:]
            if has_not_finite(data[:whole], tensor.dtype):
                self.found = name
            if tensor.end > self._place:
                return
            self._next += 1


class WeightReaders:
    """Readers for the weight files of a model, each for the time that its file is read.

    Call it with a file to get the file's reader, or ``None`` for a file of another kind.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._readers: dict[str, FiniteWeights] = {}

    def __call__(self, path: Path) -> FiniteWeights | None:
        """Return the reader of one file."""
        if path.suffix != ".safetensors":
            return None
        try:
            tensors = read_header(path, self._model)
        except StageError:  # its digest will tell
            return None
        reader = self._readers[path.name] = FiniteWeights.of(tensors)
        return reader

    def require_finite(self) -> None:
        """Check that all numbers that were read are finite.

        Raises:
            StageError: ``ModelCorrupt``.
        """
        for file, reader in self._readers.items():
            if reader.found is not None:
                raise StageError(
                    reasons.MODEL_CORRUPT,
                    f"{self._model}: {reader.found} in {file} has infinite or undefined numbers; save the model again from weights that"
                    " are finite.",
                )
