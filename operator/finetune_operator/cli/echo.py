r"""Lines of output in which texts of others have no effect on the terminal.

Training programs, servers, files and Events bring texts into a status or a log. Their control characters could write to the clipboard, clear
the screen or hide text, so each of them is printed as an escape sequence (``\x1b``). Commands print by :func:`echo`, and tables by
:func:`~.terminal.console`.
"""

from __future__ import annotations

import logging
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

KEPT = "\n\t"
"""Control characters that only arrange text."""


def visible(text: str, *, keep: str = "") -> str:
    """Return text with escape sequences for characters that a terminal does not print or that change the order of others.

    ``keep``: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(each if _is_shown(each) or each in keep else each.encode("unicode_escape").decode() for each in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # spaces, such as that of Japanese


def visible_values(value: Any) -> Any:
    """Return an object of Kubernetes with all its texts :func:`visible`, so that tables have the right widths."""
    if isinstance(value, str):
        return visible(value, keep=KEPT)
    if isinstance(value, Mapping):
        return {visible_values(key): visible_values(each) for key, each in value.items()}
    return [visible_values(each) for each in value] if isinstance(value, list) else value


def echo(text: object, *, err: bool = False, end: str = "\n") -> None:
    """Print a text, whose line ends and tabs stay, and flush. ``err``: to standard error."""
    print(visible(str(text), keep=KEPT), file=sys.stderr if err else sys.stdout, end=end, flush=True)


class EchoHandler(logging.Handler):
    """Prints records of loggers by :func:`echo` to standard error: errors of servers and objects are parts of them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, with its traceback."""
        echo(self.format(record), err=True)
