"""Arrays that grow on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune_stages.tokenization.store import GrowingArray, TokenWriter


@pytest.mark.parametrize("lengths", [[], [0], [3], [5, 0, 100_000]])
def test_an_array_is_read_as_numpy_writes_it(tmp_path: Path, lengths: list[int]) -> None:
    growing = GrowingArray(tmp_path / "a.npy", np.int32)
    parts = [np.arange(length, dtype=np.int64) for length in lengths]
    for part in parts:
        growing.append(part)
    growing.close()
    found = np.load(tmp_path / "a.npy", mmap_mode="r" if sum(lengths) else None)
    assert found.dtype == np.int32
    assert np.array_equal(found, np.concatenate([np.empty(0), *parts]))


def test_rows_and_their_counts(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("tokens.npy", "learned.npy", "offsets.npy")]
    with TokenWriter(*files) as writer:
        writer.append(np.array([1, 2, 3], dtype=np.int32), np.array([False, True, True]))
        writer.append(np.array([4], dtype=np.int32), np.array([True]))
    assert (writer.rows, writer.tokens, writer.learned, writer.longest) == (2, 4, 3, 3)
    assert [np.load(file).tolist() for file in files] == [[1, 2, 3, 4], [False, True, True, True], [0, 3, 4]]


def fail_while_writing(files: list[Path], writers: list[TokenWriter]) -> None:
    with TokenWriter(*files) as writer:
        writers.append(writer)
        writer.append(np.array([1], dtype=np.int32), np.array([True]))
        writer._ids._file.close()  # as on a full disk: closing raises a second error
        raise ValueError("the first")


def test_after_an_error_nothing_is_written_and_the_error_stays(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("tokens.npy", "learned.npy", "offsets.npy")]
    writers: list[TokenWriter] = []
    with pytest.raises(ValueError, match="the first"):
        fail_while_writing(files, writers)
    assert writers[0]._flags._file.closed
    assert not files[2].exists()
