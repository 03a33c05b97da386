"""Cache of the runs in progress: each as the last pass left it, and the versions that this process read or wrote.

The cache only saves reads and passes. A decision about a stale run does no harm: it begins with a write of the status onto the
version that the pass began with, and the API server rejects that write if the run has changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .cluster import Object, RunKey

_VERSIONS = 8
"""Versions that are kept for each run: on a busy cluster, a watch reports a write only after the next ones are made."""


@dataclass
class _Entry:
    versions: tuple[str, ...] = ()
    """Versions that the last passes read or wrote."""
    watched: bool = False
    """Whether a watch has reported the run since it was last forgotten. Without a watch, changes would go unnoticed."""
    document: str | None = None
    """The run as the last pass left it, as JSON, which needs a tenth of the memory of dictionaries."""
    version_during_pass: str | None = None
    """The version that a watch reported while a pass was in progress."""


class RunCache:
    """Cache of runs by namespace and name."""

    def __init__(self) -> None:
        self._entries: dict[RunKey, _Entry] = {}
        self._terminal: set[RunKey] = set()

    def on_event(self, key: RunKey, version: str, *, busy: bool) -> bool:
        """Handle a version of the run that a watch reports. Return whether the run needs a pass.

        Args:
            key: the run.
            version: its resource version.
            busy: whether a pass is in progress. If so, :meth:`observe_pass` returns whether another one is needed.
        """
        self._terminal.discard(key)
        entry = self._entries.setdefault(key, _Entry())
        entry.watched = True
        if busy:
            entry.version_during_pass = version
            return False
        if version in entry.versions:
            return False
        entry.document = None
        return True

    def pop(self, key: RunKey) -> Object | None:
        """Return the run as the last pass left it, once; ``None`` if it may have changed since then."""
        entry = self._entries.get(key)
        if entry is None or entry.document is None:
            return None
        text, entry.document = entry.document, None
        document: Object = json.loads(text)
        return document

    def observe_pass(self, key: RunKey, version: str, document: Object) -> bool:
        """Record the result of a pass. Return whether somebody else changed the run in the meantime.

        Args:
            key: the run.
            version: the version that the pass began with.
            document: the run as the pass left it.
        """
        if key in self._terminal:
            return False
        entry = self._entries.setdefault(key, _Entry())
        entry.versions = (*entry.versions[2 - _VERSIONS :], version, document["metadata"]["resourceVersion"])
        changed = entry.version_during_pass is not None and entry.version_during_pass not in entry.versions
        entry.version_during_pass = None
        metadata = {name: value for name, value in document["metadata"].items() if name != "managedFields"}
        entry.document = (
            json.dumps(document | {"metadata": metadata}, separators=(",", ":")) if entry.watched and not changed else None
        )
        return changed

    def add_version(self, key: RunKey, version: str) -> None:
        """Record a version that this process wrote in a pass that failed."""
        entry = self._entries.setdefault(key, _Entry())
        entry.versions = (*entry.versions[1 - _VERSIONS :], version)

    def forget(self, key: RunKey) -> None:
        """Drop the run, so that the next pass reads it."""
        self._entries.pop(key, None)
        self._terminal.discard(key)

    def mark_terminal(self, key: RunKey) -> None:
        """Drop a run that has ended. It needs no pass until it changes."""
        self._entries.pop(key, None)
        self._terminal.add(key)

    def is_terminal(self, key: RunKey) -> bool:
        """Return whether the run is marked as terminal."""
        return key in self._terminal
