"""``finetune delete``: a run, what it runs and, if asked for, its files."""

from __future__ import annotations

import asyncio

from . import exitcodes
from .backend import Target, find_backend
from .errors import guarded


def delete_run(where: Target, name: str, *, purge: bool) -> int:
    """Delete a run. What it runs is stopped."""

    def command() -> int:
        print(asyncio.run(find_backend(where).delete(name, purge=purge)))
        return exitcodes.OK

    return guarded(command)
