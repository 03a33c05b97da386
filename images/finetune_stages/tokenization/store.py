"""Token files: flat NumPy arrays that are written row by row with bounded memory, and memory-mapped by training."""

from __future__ import annotations

from array import array
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class GrowingArray:
    """Writer of a one-dimensional ``.npy`` file of unknown length; its header has space for any length."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self._dtype = np.dtype(dtype)
        self._file: BinaryIO = path.open("wb", buffering=1 << 20)
        self._write_header(0)
        self.start = self._file.tell()

    def append(self, values: NDArray[Any]) -> None:
        """Append values."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).tobytes())

    def close(self) -> None:
        """Write the length and close the file."""
        with self._file:
            self._write_length()

    def abandon(self) -> None:
        """Close the file without its length, after an error."""
        with suppress(OSError):  # the first error is the one to report
            self._file.close()

    def _write_length(self) -> None:
        length = (self._file.tell() - self.start) // self._dtype.itemsize
        self._file.seek(0)
        self._write_header(length)
        if self._file.tell() != self.start:
            raise RuntimeError(f"the header of {self._file.name} has another size with its length")

    def _write_header(self, length: int) -> None:
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (length,)}
        npy.write_array_header_1_0(self._file, header)


class TokenWriter:
    """Writer of the three token files; a context manager.

    Attributes:
        rows, tokens, learned, longest: counts of rows, tokens, and tokens with a label; tokens of the longest row.
        squares: sum of the squared tokens of the rows.
    """

    def __init__(self, ids: Path, learned: Path, offsets: Path) -> None:
        self._ids, self._flags = GrowingArray(ids, np.int32), GrowingArray(learned, np.bool_)
        self._offsets, self._offsets_path = array("q", [0]), offsets
        self.learned = self.longest = self.squares = 0

    @property
    def rows(self) -> int:
        """Number of rows so far."""
        return len(self._offsets) - 1

    @property
    def tokens(self) -> int:
        """Number of tokens so far."""
        return self._offsets[-1]

    def percentiles(self, *percents: int) -> list[int]:
        """Return percentiles of the tokens of a row, as nearest ranks."""
        lengths = np.diff(np.array(self._offsets, dtype=np.int64))
        found: list[int] = np.percentile(lengths, percents, method="inverted_cdf").tolist()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None) -> None:
        if error is not None:
            self._ids.abandon()
            self._flags.abandon()
            return
        try:
            self._ids.close()
            self._flags.close()
        except BaseException:
            self._flags.abandon()
            raise
        np.save(self._offsets_path, np.frombuffer(self._offsets, dtype=np.int64), allow_pickle=False)

    def append(self, ids: NDArray[np.int32], learned: NDArray[np.bool_]) -> None:
        """Append one row."""
        self._ids.append(ids)
        self._flags.append(learned)
        self._offsets.append(self.tokens + len(ids))
        self.learned += int(learned.sum())
        self.longest = max(self.longest, len(ids))
        self.squares += len(ids) ** 2
