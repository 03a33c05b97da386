"""The console of a command: as wide as the terminal; in pipes and files lines are never wrapped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .echo import KEPT, visible

_NO_MARGIN = 10_000


class _Console(Console):
    """A console without markup, whose texts are :func:`~.echo.visible`: they may be those of a training program or a server."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text, keep=KEPT), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, keep=KEPT))


def console(*, stderr: bool = False) -> Console:
    """Return the console of this command."""
    found = _console(None, stderr=stderr)
    return found if found.is_terminal else _console(_NO_MARGIN, stderr=stderr)


def _console(width: int | None, *, stderr: bool) -> Console:
    return _Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
