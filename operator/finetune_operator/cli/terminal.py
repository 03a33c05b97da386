"""Where a command prints: on a terminal as wide as that is, in pipes and files without a margin, so that nothing is cut."""

from __future__ import annotations

from rich.console import Console

_NO_MARGIN = 10_000


def console(*, stderr: bool = False) -> Console:
    """The console of this command."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_NO_MARGIN)
