"""Decompression of files, by their content and not their names, up to a limit."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.formats import compression

_CHUNK = 1 << 20
_RATIO = 200
_LEAST = 1 << 30
"""A file may unpack to this many bytes, or to ``_RATIO`` times its size if that is more: a small file must not fill a shared volume."""


_Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor


def _content(path: Path, kind: str) -> Iterator[bytes]:
    """Yield the content of a compressed file, some bytes at a time.

    Raises:
        EOFError: The file ends before its end mark.
        OSError, zlib.error, lzma.LZMAError: It is damaged. Errors of the disk have a number.
    """
    if kind == "bzip2":
        yield from _streams(path, bz2.BZ2Decompressor)
    elif kind == "xz":
        yield from _streams(path, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), padding=b"\0")
    else:
        with gzip.GzipFile(path) if kind == "gzip" else _open_zstandard(path) as source:
            while chunk := source.read(_CHUNK):
                yield chunk


def _streams(path: Path, new: Callable[[], _Decompressor], padding: bytes = b"") -> Iterator[bytes]:
    """Yield the content of all streams of a file, with ``padding`` between them.

    The classes of the standard library are not used: they ignore everything from a damaged beginning of a later stream on.
    """
    decompressor, data = new(), b""
    with path.open("rb") as source:
        while True:
            if decompressor.eof:
                data = decompressor.unused_data.lstrip(padding)
                while not data and (more := source.read(_CHUNK)):
                    data = more.lstrip(padding)
                if not data:
                    return
                decompressor = new()
            elif decompressor.needs_input:
                data = source.read(_CHUNK)
                if not data:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            else:
                data = b""
            yield decompressor.decompress(data, _CHUNK)


def _open_zstandard(path: Path) -> BinaryIO:
    import pyarrow as pa

    return cast("BinaryIO", pa.input_stream(str(path), compression="zstd"))


def limit(path: Path) -> int:
    """Return the largest size in bytes of the content of a compressed file."""
    return max(_LEAST, _RATIO * path.stat().st_size)


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
        with target.open("wb") as sink:
            for chunk in _content(path, kind):
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


def is_truncated(path: Path) -> bool:
    """Return whether a compressed file ends before its end mark."""
    with path.open("rb") as stream:
        kind = compression(stream.read(8))
    if kind is None:
        return False
    room = limit(path)
    try:
        for chunk in _content(path, kind):
            room -= len(chunk)
            if room < 0:
                break
    except EOFError:
        return True
    except (OSError, zlib.error, lzma.LZMAError):
        pass  # damaged: its reader reports it
    return False
