"""A transaction of the store: the objects that it reads and writes, and the kinds that it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from finetune_operator.api.kinds import Kind, kind_of
from finetune_operator.loop.cluster import Object

from .database import Database


@dataclass
class Transaction:
    """The objects inside a transaction of the database.

    Attributes:
        now: the time of the transaction, RFC 3339 in UTC seconds.
        touched: the changed kinds.
    """

    database: Database
    now: str
    touched: set[Kind] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._version = self.database.version()

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object by name."""
        return _decoded(self.database.find(kind, namespace, name))

    def find_uid(self, uid: str) -> Object | None:
        """Return an object by UID."""
        return _decoded(self.database.find_uid(uid))

    def dependents(self, uid: str) -> Iterator[tuple[Kind, Object]]:
        """Yield the objects with owner ``uid``, each read when it is yielded: one deletion may cause another."""
        for dependent in self.database.dependents(uid):
            obj = self.find_uid(dependent)
            if obj is not None:
                yield kind_of(obj), obj

    def write(self, kind: Kind, obj: Object, old: Object | None = None) -> Object:
        """Write a new object, or a new state of ``old``. Returns it with its resourceVersion."""
        written = self._versioned(obj)
        self.database.write(kind, written, old)
        self.touched.add(kind)
        return written

    def remove(self, kind: Kind, obj: Object) -> None:
        """Remove an object."""
        self.database.remove(kind, self._versioned(obj))
        self.touched.add(kind)

    def _versioned(self, obj: Object) -> Object:
        self._version += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}


def _decoded(body: str | None) -> Object | None:
    if body is None:
        return None
    obj: Object = json.loads(body)
    return obj
