"""``finetune delete``: delete a run, its children and optionally its files."""

from __future__ import annotations

import asyncio

from . import exit_status
from .backend_selection import find_backend
from .echo import echo
from .errors import handle_errors
from .options import Target


def delete_run(target: Target, name: str, *, purge: bool) -> int:
    """Delete a run and stop its stages."""

    def command() -> int:
        echo(asyncio.run(find_backend(target).delete(name, purge=purge)))
        return exit_status.OK

    return handle_errors(command)
