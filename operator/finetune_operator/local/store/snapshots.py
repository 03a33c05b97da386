"""Snapshots of long lists, so that all pages show the same state."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_operator.loop.cluster import Object, Page

from . import rejections

_KEPT_SECONDS = 300.0
_KEPT_LISTS = 8


@dataclass(frozen=True)
class _List:
    until: float
    version: str
    items: Sequence[Object]


class Snapshots:
    """The lists with remaining pages. A continue token is ``<list>.<offset>`` and can be used repeatedly."""

    def __init__(self) -> None:
        self._lists: dict[str, _List] = {}

    def first(self, items: Sequence[Object], version: str, limit: int) -> Page:
        """Return the first page of a list; with limit 0, the whole list."""
        if not 0 < limit < len(items):
            return Page(list(items), version)
        name = secrets.token_hex(8)
        self._forget()
        self._lists[name] = _List(time.monotonic() + _KEPT_SECONDS, version, items)
        return self.next(f"{name}.0", limit)

    def next(self, continuation: str, limit: int) -> Page:
        """Return the page of a continue token.

        Raises:
            Gone: the token has expired.
            Invalid: it is not a token.
        """
        name, _, offset = continuation.partition(".")
        if not offset.isdecimal():
            raise rejections.bad_request(f"invalid continue token: {continuation!r}")
        found = self._lists.get(name)
        if found is None or found.until < time.monotonic():
            raise rejections.expired_continuation()
        start = int(offset)
        end = start + limit if limit > 0 else len(found.items)
        return Page(list(found.items[start:end]), found.version, f"{name}.{end}" if end < len(found.items) else None)

    def _forget(self) -> None:
        now = time.monotonic()
        alive = {name: one for name, one in self._lists.items() if one.until > now}
        self._lists = dict(list(alive.items())[-(_KEPT_LISTS - 1) :])
