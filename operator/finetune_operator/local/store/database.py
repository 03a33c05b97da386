"""The SQLite database of the store: objects, the log of their changes, and owner references.

Durability: WAL with ``synchronous=NORMAL``. A committed transaction survives a crash of the process at any instant, because the
operating system has its pages by then. A crash of the machine may lose the last transactions, each as a whole. ``FULL`` would
prevent that at the cost of one fsync per write (a tenth of the speed). The control loop does not need it: it is level-triggered,
and after a crash of the machine the processes that the objects describe no longer exist.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_operator.api.kinds import Kind
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import Timeout, Transient

from .rejections import resource_of

FORMAT = 1
RETAINED_EVENTS = 1000
"""Number of events in the log. Watches and lists of older versions must start again."""

_LOCK_SECONDS = 5.0
_EMPTY = 1  # the version of a store without objects: a resourceVersion of 0 means "any" to Kubernetes
_TABLES = """
CREATE TABLE objects (
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL UNIQUE, body TEXT NOT NULL,
  UNIQUE (kind, namespace, name));
CREATE TABLE events (
  version INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, type TEXT NOT NULL, body TEXT NOT NULL, labels TEXT);
CREATE TABLE owners (
  owner TEXT NOT NULL, dependent TEXT NOT NULL REFERENCES objects (uid) ON DELETE CASCADE, PRIMARY KEY (owner, dependent))
  WITHOUT ROWID;
CREATE INDEX owners_of ON owners (dependent);
"""


class StoreError(Exception):
    """The file cannot be used as a store; the message has the remedy."""


@dataclass(frozen=True)
class Event:
    """One entry of the log.

    Attributes:
        version: the resourceVersion of the change.
        type: the type of the change.
        body: the object after the change (before a deletion), as JSON.
        old_labels: the labels before the change as JSON, if they changed.
    """

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    body: str
    old_labels: str | None


def encode(value: object) -> str:
    """Return the stored form of a JSON value."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Database:
    """The tables of the store, independent of the meaning of objects.

    Args:
        path: the file; it is created if missing, readable for its owner only.

    Raises:
        StoreError: the file is not a store, or a later release wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: not usable as the object store ({error}); move the file away") from error

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA foreign_keys = ON")
        execute("BEGIN IMMEDIATE")
        (found,) = execute("PRAGMA user_version").fetchone()
        if found == 0:
            for statement in _TABLES.split(";\n"):
                execute(statement)
            execute(f"PRAGMA user_version = {FORMAT}")
        execute("COMMIT")
        if found > FORMAT:
            raise StoreError(f"{self.path}: written by a later release of finetune; install that release")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one consistent snapshot inside this context."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes inside this context, or none.

        Raises:
            Timeout: another process locks the file.
            Transient: the disk is full or fails.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if "locked" in str(error) or "busy" in str(error):
                raise Timeout(
                    f"{self.path}: another process has locked the file for more than {_LOCK_SECONDS:.0f} s; try again"
                ) from error
            raise Transient(f"{self.path}: {error}") from error

    def version(self) -> int:
        """Return the version of the last change."""
        (version,) = self._connection.execute("SELECT max(version) FROM events").fetchone()
        return version or _EMPTY

    def oldest(self) -> int:
        """Return the oldest version in the log."""
        (version,) = self._connection.execute("SELECT min(version) FROM events").fetchone()
        return version or _EMPTY + 1

    def stamp(self) -> int:
        """Return a number that changes when another process writes to the file."""
        (stamp,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(stamp)

    def find(self, kind: Kind, namespace: str, name: str) -> str | None:
        """Return the body of an object, ``None`` if it does not exist."""
        row = self._connection.execute(
            "SELECT body FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (resource_of(kind), namespace, name)
        ).fetchone()
        return None if row is None else row[0]

    def find_uid(self, uid: str) -> str | None:
        """Return the body of the object with a UID, ``None`` if it does not exist."""
        row = self._connection.execute("SELECT body FROM objects WHERE uid = ?", (uid,)).fetchone()
        return None if row is None else row[0]

    def bodies(self, kind: Kind, namespace: str | None) -> list[str]:
        """Return the bodies of a kind's objects in one or all namespaces, sorted by namespace and name."""
        where, values = (
            ("kind = ?", [resource_of(kind)])
            if namespace is None
            else ("kind = ? AND namespace = ?", [resource_of(kind), namespace])
        )
        query = f"SELECT body FROM objects WHERE {where} ORDER BY namespace, name"  # noqa: S608 - contains no external text
        return [body for (body,) in self._connection.execute(query, values)]

    def dependents(self, uid: str) -> list[str]:
        """Return the UIDs of the objects that have ``uid`` as an owner, in order of creation."""
        query = "SELECT dependent FROM owners JOIN objects ON uid = dependent WHERE owner = ? ORDER BY objects.rowid"
        return [dependent for (dependent,) in self._connection.execute(query, (uid,))]

    def events(self, kind: Kind, namespace: str | None, after: int, until: int) -> list[Event]:
        """Return the log of a kind for the versions in ``(after, until]``."""
        where, values = ("", []) if namespace is None else ("AND namespace = ?", [namespace])
        query = f"""SELECT version, type, body, labels FROM events
                    WHERE version > ? AND version <= ? AND kind = ? {where} ORDER BY version"""  # noqa: S608 - as above
        return [Event(*row) for row in self._connection.execute(query, [after, until, resource_of(kind), *values])]

    def write(self, kind: Kind, obj: Object, old: Object | None) -> None:
        """Write a new object, or a new state of ``old``; its resourceVersion is the version of the event."""
        metadata = obj["metadata"]
        body, namespace = encode(obj), metadata.get("namespace", "")
        if old is None:
            values = (resource_of(kind), namespace, metadata["name"], metadata["uid"], body)
            self._connection.execute("INSERT INTO objects (kind, namespace, name, uid, body) VALUES (?, ?, ?, ?, ?)", values)
        else:
            self._connection.execute("UPDATE objects SET body = ? WHERE uid = ?", (body, metadata["uid"]))
        self._write_owners(obj, old)
        self._log(kind, "ADDED" if old is None else "MODIFIED", obj, body, old)

    def remove(self, kind: Kind, obj: Object) -> None:
        """Remove an object; its resourceVersion is the version of the event."""
        self._connection.execute("DELETE FROM objects WHERE uid = ?", (obj["metadata"]["uid"],))
        self._log(kind, "DELETED", obj, encode(obj), None)

    def _write_owners(self, obj: Object, old: Object | None) -> None:
        references = obj["metadata"].get("ownerReferences") or []
        if references == ((old or {}).get("metadata", {}).get("ownerReferences") or []):
            return
        uid = obj["metadata"]["uid"]
        self._connection.execute("DELETE FROM owners WHERE dependent = ?", (uid,))
        pairs = {(reference["uid"], uid) for reference in references}
        self._connection.executemany("INSERT INTO owners (owner, dependent) VALUES (?, ?)", pairs)

    def _log(self, kind: Kind, type_: str, obj: Object, body: str, old: Object | None) -> None:
        metadata = obj["metadata"]
        version = int(metadata["resourceVersion"])
        before = metadata.get("labels") if old is None else old["metadata"].get("labels")
        labels = None if before == metadata.get("labels") else encode(before or {})
        self._connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
            (version, resource_of(kind), metadata.get("namespace", ""), type_, body, labels),
        )
        self._connection.execute("DELETE FROM events WHERE version <= ?", (version - RETAINED_EVENTS,))
