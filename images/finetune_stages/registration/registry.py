"""Protocol of both registries, and the registration of a record in either.

Registries have no transaction over all parts of a version. Therefore every step reads first and writes what is missing: a program that was
killed, or whose response was lost, repeats the steps and finds its own entry by the record's identity. Idempotent calls are retried alone
(:func:`settled`); a call that creates something is retried together with its read (:func:`again`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .record import Record
from .versions import Choice, Entry, OnExisting, choose

T = TypeVar("T")

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each retry of a step; the control loop retries the whole stage later."""
LONGEST_WAIT = 10.0
"""Longest Retry-After in seconds; a longer one is left to the control loop."""
_RACES = 20
"""Largest number of attempts to create a free version, if other runs take it first."""


class Unanswered(StageError):
    """The registry is unreachable or busy. ``retry_after`` is the requested delay in seconds."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(reasons.REGISTRY_UNREACHABLE, message)
        self.retry_after = retry_after


class AlreadyExists(StageError):
    """The object exists: another client, or an earlier attempt whose response was lost, has created it."""

    def __init__(self, what: str) -> None:
        super().__init__(reasons.REGISTRY_REJECTED, f"{what}: it already exists in the registry.")


class Registry(Protocol):
    """A model registry. All methods can be retried after any fault.

    They raise :class:`Unanswered`, or a :class:`StageError` for permanent faults.
    """

    def versions(self, record: Record) -> Sequence[Entry]:
        """Return the versions of the record's model, the oldest first."""

    def create(self, record: Record, version: str) -> None:
        """Create the record's version with its identity.

        Raises:
            AlreadyExists: The version exists.
        """

    def update(self, record: Record, entry: Entry) -> None:
        """Overwrite the version of ``entry`` with the record."""

    def complete(self, record: Record, entry: Entry) -> None:
        """Write the missing parts of the record's entry."""

    def set_alias(self, record: Record, entry: Entry, alias: str) -> None:
        """Set ``alias`` on the entry."""

    def differences(self, record: Record, entry: Entry) -> list[str]:
        """Read the entry back and return the names of the parts that differ from ``record``."""


def register(registry: Registry, record: Record, on_existing: OnExisting) -> Entry:
    """Write or complete the entry of ``record``, and read it back.

    Raises:
        StageError: ``VersionExists``, ``ReadBackFailed``, or an error of the registry.
    """
    entry = again(lambda: _own_entry(registry, record, on_existing))
    again(lambda: registry.complete(record, entry))
    alias = record.effective_alias
    if alias:
        again(lambda: registry.set_alias(record, entry, alias))
    differing = again(lambda: registry.differences(record, entry))
    if differing:
        raise StageError(
            reasons.READ_BACK_FAILED,
            f"{record.name} {entry.version}: the registry returned another {', '.join(differing)} than was written.",
        )
    return entry


def _own_entry(registry: Registry, record: Record, on_existing: OnExisting) -> Entry:
    """Return the record's entry from the registry's list, and create it if it does not exist."""
    for _ in range(_RACES):
        choice = choose(record, on_existing, registry.versions(record))
        if choice.action == "Own" and choice.entry:
            return choice.entry
        try:
            _carry_out(registry, record, choice)
        except AlreadyExists:
            continue
    raise StageError(
        reasons.REGISTRY_REJECTED,
        f"registry.version: the registry has {record.name} {choice.version} but does not list it, possibly in other case;"
        " set another name or version.",
    )


def _carry_out(registry: Registry, record: Record, choice: Choice) -> None:
    if choice.action == "Update" and choice.entry:
        registry.update(record, choice.entry)
    else:
        registry.create(record, choice.version)


def again(step: Callable[[], T]) -> T:
    """Return the result of the idempotent ``step``, and retry it while the registry is unreachable.

    Raises:
        Unanswered: All retries failed.
    """
    for wait in WAITS:
        try:
            return step()
        except Unanswered as fault:
            if fault.retry_after > LONGEST_WAIT:
                raise
            print(f"{fault.message} Retrying.")
            time.sleep(max(wait, fault.retry_after))
    return step()


def settled(call: Callable[[], T]) -> T:
    """Retry one idempotent call like :func:`again`; the enclosing step does not retry it again.

    Raises:
        StageError: ``RegistryUnreachable``.
    """
    try:
        return again(call)
    except Unanswered as fault:
        raise StageError(fault.reason, fault.message) from fault
