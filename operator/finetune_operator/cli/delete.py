"""``finetune delete``: a run, what it runs and, if asked for, its files."""

from __future__ import annotations

import asyncio

from . import exitcodes
from .place import Where, find_place
from .refusal import guarded


def delete_run(where: Where, name: str, *, purge: bool) -> int:
    """Delete a run. What it runs is stopped."""

    def command() -> int:
        print(asyncio.run(find_place(where).delete(name, purge=purge)))
        return exitcodes.OK

    return guarded(command)
