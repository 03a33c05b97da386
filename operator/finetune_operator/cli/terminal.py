"""The console of a command: as wide as the terminal; in pipes and files lines are never wrapped."""

from __future__ import annotations

from rich.console import Console

_NO_MARGIN = 10_000


def console(*, stderr: bool = False) -> Console:
    """Return the console of this command."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_NO_MARGIN)
