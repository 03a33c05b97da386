"""Everything a process prints goes to its container's log and into the workspace, secrets removed."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


class Tee:
    """A text stream that writes to two others. Stands in for ``sys.stdout`` and ``sys.stderr``."""

    def __init__(self, stream: TextIO, file: TextIO, redact: Callable[[str], str]) -> None:
        self._stream, self._file, self._redact = stream, file, redact

    def write(self, text: str) -> int:
        """Write ``text``, secrets removed, to both."""
        clean = self._redact(text)
        self._stream.write(clean)
        try:
            self._file.write(clean)
        except OSError:  # a full volume must not take the container's own log away
            pass
        return len(text)

    def flush(self) -> None:
        """Flush both."""
        self._stream.flush()
        try:
            self._file.flush()
        except OSError:
            pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def tee_output(path: Path, redact: Callable[[str], str]) -> None:
    """From now on ``print`` and tracebacks of this process also go to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8", buffering=1, errors="replace")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # through a pipe too: somebody may be watching
    sys.stdout = Tee(sys.stdout, file, redact)
    sys.stderr = Tee(sys.stderr, file, redact)
