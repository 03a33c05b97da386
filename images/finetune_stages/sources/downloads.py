"""Parallel download of files in ranges, which resumes after a dropped connection and in a later attempt of the stage."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_stages.sdk import StageError

from .download_limits import Pace, require_size
from .origin import Origin
from .progress import ProgressCounter

PART = 16 << 20
"""Size in bytes of a range. A smaller file is one range."""
CHUNK = 1 << 16
"""Bytes that a connection may have received before they are counted. It is small, so that a slow connection is no stalled one."""
CONNECTIONS = 8
_TRIES = 5
"""Connections in a row that may end without a byte, or at all if the file has no identity."""
_PAUSE = 0.2
"""Seconds before the second of them; each later pause is twice as long."""
_POLL = 0.1


class Dropped(Exception):
    """A connection ended before the end of its range. ``fault`` is raised if no further connection gets on."""

    def __init__(self, fault: StageError) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes:
        size: in bytes.
        identity: digest of the location and its ETag, which identifies the content; ``None`` if the server has no strong validator, so
            that the ranges of two connections may belong to different contents.
        read: yields the bytes from the first offset up to the second one; raises :class:`Dropped`, or :class:`StageError` for an error
            that another connection does not repair.
    """

    size: int
    identity: str | None
    target: Path
    read: Callable[[int, int], Iterator[bytes]]


@dataclass
class _Transfer:
    """A running download of all files: the ranges to fetch, the bytes so far, and the first error."""

    ranges: Iterator[tuple[RemoteFile, int]]
    done: int = 0
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> tuple[RemoteFile, int] | None:
        with self.lock:
            return None if self.error else next(self.ranges, None)

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count

    def fail(self, error: BaseException) -> None:
        with self.lock:
            self.error = self.error or error


def download_all(files: Sequence[RemoteFile], counter: ProgressCounter, origin: Origin, name: str) -> None:
    """Download the files to their targets. Ranges that an earlier attempt has downloaded are kept.

    Args:
        files: what to download.
        counter: reports the progress; its total is set here.
        origin: the kind of input that they are.
        name: its name in messages.

    Raises:
        StageError: ``DownloadTooLarge``; ``origin.unreachable``: the servers send too slowly; what the readers raise.
    """
    counter.total = sum(file.size for file in files)
    require_size(counter.total, origin, name)
    missing = [(file, first) for file in files for first in _missing_ranges(file)]
    kept = counter.total - sum(_end(file, first) - first for file, first in missing)
    transfer = _Transfer(iter(missing))
    # Daemon threads: SIGTERM ends the stage at once, and not after the ranges.
    threads = [threading.Thread(target=_work, args=(transfer,), daemon=True) for _ in range(min(CONNECTIONS, len(missing)))]
    for thread in threads:
        thread.start()
    pace = Pace(origin, name)
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_POLL)
                counter.at(kept + transfer.done)
                pace.at(transfer.done)
    except StageError as fault:
        transfer.fail(fault)  # which ends the other threads
        raise
    if transfer.error:
        raise transfer.error


def remove_marks(target: Path) -> None:
    """Remove the file beside a complete target that records its ranges."""
    _marks(target).unlink(missing_ok=True)


def _work(transfer: _Transfer) -> None:
    try:
        while (found := transfer.next()) is not None:
            _fetch(*found, transfer)
    except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
        transfer.fail(error)


def _fetch(file: RemoteFile, first: int, transfer: _Transfer) -> None:
    """Download one range, with a new connection from the last byte on after a drop."""
    position, end, failures = first, _end(file, first), 0
    with os.fdopen(os.open(file.target, os.O_WRONLY), "wb", buffering=0) as stream:
        stream.seek(first)
        while position < end:
            before = position
            try:
                for chunk in file.read(position, end):
                    wanted = chunk[: end - position]
                    stream.write(wanted)
                    position += len(wanted)
                    transfer.add(len(wanted))
                    if transfer.error:
                        return
                    if position >= end:  # a server that sends more is not read further
                        break
            except Dropped as drop:
                failures = 1 if position > before and file.identity else failures + 1
                if failures >= _TRIES:
                    raise drop.fault from drop
                if file.identity is None:  # the next connection may get another content: it begins again
                    position = first
                    stream.seek(first)
                time.sleep(_PAUSE * 2 ** (failures - 1))
        os.fdatasync(stream.fileno())  # before the mark: a later attempt trusts it
    with _marks(file.target).open("a", encoding="utf-8") as marks:
        marks.write(f"{first}\n")


def _missing_ranges(file: RemoteFile) -> list[int]:
    """Return the offsets of the ranges to download, and prepare the target for them."""
    header = json.dumps([file.identity, file.size, PART])
    marks = _marks(file.target)
    ranges = range(0, file.size, PART) if file.identity else range(min(file.size, 1))
    if file.identity and marks.exists() and file.target.exists() and file.target.stat().st_size == file.size:
        noted, *done = marks.read_text(encoding="utf-8").splitlines() or [""]
        if noted == header:
            present = {int(first) for first in done if first.isdecimal()}
            return [first for first in ranges if first not in present]
    with file.target.open("wb") as stream:
        stream.truncate(file.size)
    marks.write_text(f"{header}\n", encoding="utf-8")
    return list(ranges)


def _end(file: RemoteFile, first: int) -> int:
    return min(first + PART, file.size) if file.identity else file.size


def _marks(target: Path) -> Path:
    """Return the file beside a target with its identity and the offsets of its complete ranges."""
    return target.with_name(f"{target.name}.ranges")
