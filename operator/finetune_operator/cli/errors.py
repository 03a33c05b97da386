"""Errors of commands: messages for the user, and the exit code."""

from __future__ import annotations

from collections.abc import Callable

from . import exit_status
from .echo import echo


class CommandError(Exception):
    """The command failed. It has one line for each problem, and the exit code."""

    def __init__(self, lines: list[str], code: int = exit_status.INVALID) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.code = code


class NoRuns(CommandError):
    """The backend has never had a run."""


def handle_errors(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; print a :class:`CommandError` instead of raising it."""
    try:
        return command()
    except CommandError as rejection:
        for line in rejection.lines:
            echo(line, err=True)
        return rejection.code
