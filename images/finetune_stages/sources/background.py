"""Long library calls in a thread, with progress reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_BLOCK = 512
"""Unit of ``st_blocks`` in bytes, whatever the file system (inode(7))."""


def in_background(work: Callable[[], T], watch: Callable[[], None], every: float = 0.5) -> T:
    """Return the result of ``work``; ``watch`` is called every ``every`` seconds while it runs.

    The work runs in a daemon thread: Python delivers SIGTERM to the main thread, so the stage ends at once and not after the
    library's next file.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(every)
        watch()
    if errors:
        raise errors[0]
    return results[0]


def folder_size(folder: Path) -> int:
    """Return the bytes that the files below ``folder`` occupy, while other processes write there.

    A file of a download in ranges has its final size from the start: its holes are not counted.
    """
    size = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                size += min(found.st_size, found.st_blocks * _BLOCK)
        except OSError:  # moved or removed in the meantime
            pass
    return size
