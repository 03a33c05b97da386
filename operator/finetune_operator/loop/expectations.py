"""Children that this process has created, as in client-go's controller expectations.

A watch reports everything about a child from its creation on, unless the watch is interrupted. So the caches are complete for a
child that this process created, as long as no watch has listed its objects again since then: a deletion during an interruption is
never reported.
"""

from __future__ import annotations

from .cluster import Object, RunKey
from .labels import AttemptKey, attempt_of


class Expectations:
    """The attempts whose child this process created, and the number of relists of all watches."""

    def __init__(self) -> None:
        self._created: dict[RunKey, dict[AttemptKey, int]] = {}
        """For each attempt, the number of relists before its child was created."""
        self._relists = 0

    def expect_creation(self, key: RunKey, child: Object) -> None:
        """Record that this process is about to create the child of an attempt."""
        self._created.setdefault(key, {})[attempt_of(child)] = self._relists

    def forget_creation(self, key: RunKey, child: Object) -> None:
        """Record that the child existed already: its past is not known."""
        self._created.get(key, {}).pop(attempt_of(child), None)

    def observe_relist(self) -> None:
        """Record that a watch has listed its objects again."""
        self._relists += 1

    def is_expected(self, key: RunKey, attempt: AttemptKey) -> bool:
        """Return whether this process created the child of the attempt."""
        return attempt in self._created.get(key, {})

    def is_complete(self, key: RunKey, attempt: AttemptKey) -> bool:
        """Return whether this process created the child of the attempt, and no watch was interrupted since then."""
        return self._created.get(key, {}).get(attempt) == self._relists

    def forget(self, key: RunKey) -> None:
        """Drop the expectations of a run."""
        self._created.pop(key, None)
