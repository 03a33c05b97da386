"""Log lines in readable form."""

from __future__ import annotations

import codecs
import re

from finetune_contract.progress import MARK, last

from .echo import echo
from .stages_view import progress_text

_LONGEST = 64 * 1024
"""Characters of a line that is printed before its end is known."""
_STYLE = re.compile(r"\x1b\[[0-9;]{0,32}m")
"""Colors and other styles of a terminal, which can also hide text."""


class LogLines:
    """Prints a log that arrives in pieces, line by line after ``prefix``; progress marks become text."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, piece: bytes) -> None:
        """Print the complete lines."""
        *lines, self._rest = (self._rest + self._decoder.decode(piece)).split("\n")
        for line in lines:
            self._print(line)
        if len(self._rest) > _LONGEST:  # a program may never end its line
            self.close()

    def close(self) -> None:
        """Print a last line without a line end."""
        if self._rest:
            self._print(self._rest)
            self._rest = ""

    def _print(self, line: str) -> None:
        """Print a line without its styles. Progress bars write several states of a line, with a carriage return between them."""
        for state in _STYLE.sub("", line).rstrip("\r").split("\r"):
            echo(f"{self._prefix}{_readable(state)}")


def _readable(line: str) -> str:
    if not line.startswith(MARK):
        return line
    progress = last(line)
    if progress is None:
        return line
    shown = progress_text({
        "step": progress.step, "totalSteps": progress.total_steps, "loss": progress.loss, "note": progress.note,
        "tokensPerSecond": progress.tokens_per_second, "etaSeconds": progress.eta_seconds,
    })  # fmt: skip
    return f"{progress.percent:3d}% {shown}"
