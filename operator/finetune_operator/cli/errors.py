"""A command that cannot be carried out: sentences for the user, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import exitcodes


class CommandError(Exception):
    """The command cannot be carried out: sentences for the user, and the exit code."""

    def __init__(self, lines: list[str], code: int = exitcodes.INVALID) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.code = code


class NothingThere(CommandError):
    """The place has never held a run."""


def guarded(command: Callable[[], int]) -> int:
    """The exit code of a command; what a user can mend becomes one sentence."""
    try:
        return command()
    except CommandError as rejection:
        for line in rejection.lines:
            print(line, file=sys.stderr)
        return rejection.code
