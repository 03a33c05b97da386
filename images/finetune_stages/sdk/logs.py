"""Copy of a process's output, with secrets removed, to the container's log and to the workspace."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from .safe_files import without_links


class Tee:
    """Text stream that writes to two others. It replaces ``sys.stdout`` and ``sys.stderr``."""

    def __init__(self, stream: TextIO, file: TextIO, redact: Callable[[str], str]) -> None:
        self._stream, self._file, self._redact = stream, file, redact

    def write(self, text: str) -> int:
        """Write ``text``, with secrets removed, to both streams."""
        clean = self._redact(text)
        self._stream.write(clean)
        try:
            self._file.write(clean)
        except OSError:  # a full volume must not stop the container's log
            pass
        return len(text)

    def flush(self) -> None:
        """Flush both streams."""
        self._stream.flush()
        try:
            self._file.flush()
        except OSError:
            pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def tee_output(path: Path, redact: Callable[[str], str], *, errors: bool = True) -> None:
    """Copy this process's output to the file ``path`` from now on.

    ``errors``: standard error too. That of a supervised process is copied by its supervisor, which also gets the lines of native code.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_fifo():  # left by a program of training
        path.unlink()
    file = open(path, "a", encoding="utf-8", buffering=1, errors="replace", opener=without_links)  # noqa: SIM115 - it is open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # through a pipe too, for live logs
    sys.stdout = Tee(sys.stdout, file, redact)
    if errors:
        sys.stderr = Tee(sys.stderr, file, redact)
