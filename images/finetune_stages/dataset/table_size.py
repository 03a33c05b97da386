"""Size of the content of Parquet and Arrow files, measured in a process with little memory: a small file may decode to a very large one.

What a file states about its size may be wrong, and it does not include the values of a dictionary that many rows refer to.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .compressed import limit

if TYPE_CHECKING:
    import pyarrow as pa

TableKind = Literal["Parquet", "Arrow"]
_MEMORY = 3 << 30
"""Address space in bytes of the process that measures. A page of a Parquet file has at most 2 GiB."""
_ROWS = 256
"""Rows that are decoded at the same time."""
_MOST_BATCHES = 1 << 10
_BATCH = 256 << 20
"""Bytes that the reader decodes at the same time, if single rows are not larger."""


@dataclass(frozen=True)
class TableSize:
    """What was measured.

    Attributes:
        batch_rows: number of rows that can be decoded at the same time without much memory.
    """

    rows: int
    batch_rows: int


def table_kind(head: bytes) -> TableKind | None:
    """Return the format of a file that begins with ``head``; ``None`` if it is no table."""
    if head.startswith(b"PAR1"):
        return "Parquet"
    return "Arrow" if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) else None


def measure(path: Path, kind: TableKind, name: str) -> TableSize:
    """Return the size of a table.

    Raises:
        StageError: ``DatasetUnreadable``: its content is too large, or it is damaged.
    """
    most = limit(path)
    command = [sys.executable, "-P", "-m", __name__, str(path), kind, str(most), str(_MEMORY)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a module of this package
    if ended.returncode > 0:
        raise RuntimeError(ended.stderr.strip().rpartition("\n")[2])
    found: dict[str, Any] = json.loads(ended.stdout) if ended.returncode == 0 else {"memory": True}  # or a signal
    if "memory" in found:
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: a part of it takes more than {_MEMORY >> 30} GiB of memory; write it with fewer rows in a row group or a batch.",
        )
    if "large" in found:
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: its content is larger than {most >> 30} GiB; write it with less compression, or as several files.",
        )
    if "damage" in found:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name}: is a damaged {kind} file ({found['damage']}); write or download it again."
        )
    return TableSize(found["rows"], _ROWS * max(1, min(_MOST_BATCHES, _BATCH // max(1, found["batch"]))))


def main(path: str, kind: str, most: str, memory: str) -> dict[str, object]:
    """Return what :func:`measure` reads, in the process that measures."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_memory_pool(pa.system_memory_pool())
    with suppress(OSError, ValueError):  # where the system does not support it, the measurement itself stops at the limit
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    rows, size, largest = 0, 0, 0
    try:
        for batch in _parquet(path) if kind == "Parquet" else _arrow(path):
            rows += batch.num_rows
            decoded = sum(map(_decoded, batch.columns))
            size, largest = size + decoded, max(largest, decoded)
            if size > int(most):
                return {"large": True}
    except (MemoryError, pa.ArrowMemoryError):
        return {"memory": True}
    except (pa.ArrowException, OSError) as error:
        return {"damage": next(iter(str(error).splitlines()), type(error).__name__)[:200].rstrip(".")}
    return {"rows": rows, "batch": largest}


def _parquet(path: str) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(batch_size=_ROWS, use_threads=False)


def _arrow(path: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with pa.OSFile(path) as source:
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:  # the other format, as in the datasets library
            source.seek(0)
            yield from pa.ipc.open_stream(source)
        else:
            yield from (file.get_batch(number) for number in range(file.num_record_batches))


def _decoded(values: Any) -> int:
    """Return the size in bytes of an array whose dictionaries are decoded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds, kind = pa.types, values.type
    if kinds.is_dictionary(kind):
        inner = values.dictionary
        if kinds.is_string(inner.type) or kinds.is_binary(inner.type) or kinds.is_large_string(inner.type):
            texts = pc.sum(pc.binary_length(inner).take(values.indices)).as_py() or 0
            return int(texts) + int(values.indices.nbytes)
        return (_decoded(inner) // max(1, len(inner)) + 8) * len(values)
    if kinds.is_struct(kind):
        return sum(map(_decoded, values.flatten())) + len(values) // 8
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _decoded(pc.list_flatten(values)) + 8 * len(values)
    return int(values.nbytes)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
