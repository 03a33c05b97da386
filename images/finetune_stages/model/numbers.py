"""Detection of infinite and undefined numbers in weights, while a file is read for its digest.

Such a weight makes every loss undefined, so that training fails after its first step. The highest byte of a number almost always shows
that it is finite, and searching for bytes is faster than computing the digest.
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
"""Highest bytes of infinite and undefined numbers, by type."""
_FORMATS = {"F64": "d", "F32": "f", "BF16": "f", "F16": "e"}
_MASKS = ("masked_bias", "attn_mask", "causal_mask")
"""Suffixes of tensors that are attention masks, not weights, and may have minus infinity."""


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
    """Reader of a safetensors file in chunks that records the first tensor with an infinite or undefined number.

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
        """Return a reader for a file with these tensors."""
        weights = [(name, tensor) for name, tensor in tensors.items() if tensor.dtype in _FORMATS and not name.endswith(_MASKS)]
        return cls(sorted(weights, key=lambda weight: weight[1].begin))

    def __call__(self, piece: bytes) -> None:
        """Process the next bytes of the file."""
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
    """Readers for the weight files of a model.

    A call with a file returns its reader, or ``None`` for other files.
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
        except StageError:  # a damaged file fails by its digest
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
                    f"{self._model}: {reader.found} in {file} has infinite or undefined numbers; save the model again with"
                    " finite weights.",
                )
