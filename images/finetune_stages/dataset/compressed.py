"""Decompression of files, by their content and not their names, up to a limit."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.formats import compression

_CHUNK = 1 << 20
_RATIO = 200
_LEAST = 1 << 30
"""A file may unpack to this many bytes, or to ``_RATIO`` times its size if that is more: a small file must not fill a shared volume."""


def _open_zstandard(path: Path) -> BinaryIO:
    import pyarrow as pa

    return cast("BinaryIO", pa.input_stream(str(path), compression="zstd"))


_OPENERS: dict[str, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | BinaryIO]] = {
    "gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile, "Zstandard": _open_zstandard,
}  # fmt: skip


def limit(path: Path) -> int:
    """Return the largest size in bytes of the content of a compressed file."""
    return largest_content(path.stat().st_size)


def largest_content(size: int) -> int:
    """Return the largest size in bytes of what so many compressed bytes may unpack to."""
    return max(_LEAST, _RATIO * size)


def unpacked(path: Path, name: str, target: Path, advance: Callable[[int], object]) -> Path:
    """Return ``path``, or ``target`` with the content of a compressed file; ``advance`` is called with the number of bytes written.

    Raises:
        StageError: ``DatasetUnreadable``: the file is damaged or its content too large.
    """
    with path.open("rb") as stream:
        kind = compression(stream.read(8))
    if kind is None:
        return path
    room = most = limit(path)
    try:
        with _OPENERS[kind](path) as source, target.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                room -= sink.write(chunk)
                advance(len(chunk))
                if room < 0:
                    raise StageError(
                        reasons.DATASET_UNREADABLE,
                        f"{name}: its content is larger than {most >> 30} GiB; unpack it and set the file inside.",
                    )
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # an error of the disk
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: is a damaged {kind} file ({str(error).rstrip('.')}); download or compress it again.",
        ) from error
    return target
