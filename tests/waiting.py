"""Waiting for something with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], until: Callable[[T], bool] = bool, seconds: float = 30.0) -> T:
    """The first answer of ``look`` that satisfies ``until``.

    Raises:
        AssertionError: there was none in that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if until(found):
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        await asyncio.sleep(0.02)
