"""The small protocol that both registries speak, and the one way in which a record goes into either.

No registry has a transaction over what belongs to a version. So every step looks first and writes what is missing: a program that
is killed anywhere, or whose answer is lost, does the same steps again and finds its own entry by the record's identity. Calls that
may be made twice are made again by themselves (:func:`settled`); a call that would make a second thing only together with its look
(:func:`again`).
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
"""Seconds before each further try of a step; the control loop tries the whole stage again later."""
LONGEST_WAIT = 10.0
"""A busy server that asks for more seconds than that is left to the control loop."""
_RACES = 20
"""So often the version that was free when it was looked for may be taken when it is asked for."""


class Unanswered(StageError):
    """The registry did not answer, or not now. ``retry_after`` is the seconds that it asked for."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(reasons.REGISTRY_UNREACHABLE, message)
        self.retry_after = retry_after


class AlreadyExists(StageError):
    """Somebody else, or an earlier try whose answer was lost, made what was to be made."""

    def __init__(self, what: str) -> None:
        super().__init__(reasons.REGISTRY_REFUSED, f"The registry has it already: {what}.")


class Registry(Protocol):
    """A registry of models. Every method may be called again after any fault.

    Every method raises :class:`Unanswered`, or a :class:`StageError` where trying again does not help.
    """

    def versions(self, record: Record) -> Sequence[Entry]:
        """Return the versions of the record's model, the oldest first."""

    def create(self, record: Record, version: str) -> None:
        """Make the record's version, with its identity from the first moment on.

        Raises:
            Taken: there is a version of that name by now.
        """

    def update(self, record: Record, entry: Entry) -> None:
        """Let the version that ``entry`` is be the record's from now on."""

    def complete(self, record: Record, entry: Entry) -> None:
        """Write what is missing of the record's own entry."""

    def set_alias(self, record: Record, entry: Entry, alias: str) -> None:
        """Let ``alias`` name the entry."""

    def differences(self, record: Record, entry: Entry) -> list[str]:
        """Ask for everything again, and name what is otherwise than in ``record``."""


def register(registry: Registry, record: Record, on_existing: OnExisting) -> Entry:
    """Write ``record``, or complete it, and read it back.

    Raises:
        StageError: ``VersionExists``, ``ReadBackFailed``, or what the registry raises.
    """
    entry = again(lambda: _own_entry(registry, record, on_existing))
    again(lambda: registry.complete(record, entry))
    alias = record.wanted_alias
    if alias:
        again(lambda: registry.set_alias(record, entry, alias))
    differing = again(lambda: registry.differences(record, entry))
    if differing:
        raise StageError(
            reasons.READ_BACK_FAILED,
            f"{record.name} {entry.version}: the store gave back another {', '.join(differing)} than written.",
        )
    return entry


def _own_entry(registry: Registry, record: Record, on_existing: OnExisting) -> Entry:
    """Return the record's own entry, made if need be, and seen in the registry's own list."""
    for _ in range(_RACES):
        choice = choose(record, on_existing, registry.versions(record))
        if choice.action == "Own" and choice.entry:
            return choice.entry
        try:
            _carry_out(registry, record, choice)
        except AlreadyExists:
            continue
    raise StageError(
        reasons.REGISTRY_REFUSED,
        f"registry.version: the registry calls {record.name} {choice.version} taken, yet does not list it; some registries do not"
        " tell upper from lower case: choose another name or version.",
    )


def _carry_out(registry: Registry, record: Record, choice: Choice) -> None:
    if choice.action == "Update" and choice.entry:
        registry.update(record, choice.entry)
    else:
        registry.create(record, choice.version)


def again(step: Callable[[], T]) -> T:
    """Return the outcome of ``step``, which may be done twice; tried again while the registry does not answer.

    Raises:
        Unanswered: it did not answer so often.
    """
    for wait in WAITS:
        try:
            return step()
        except Unanswered as fault:
            if fault.retry_after > LONGEST_WAIT:
                raise
            print(f"{fault.message} It is asked again.")
            time.sleep(max(wait, fault.retry_after))
    return step()


def settled(call: Callable[[], T]) -> T:
    """:func:`again` for one call that may be made twice: the step that it is part of does not try it further.

    Raises:
        StageError: ``RegistryUnreachable``.
    """
    try:
        return again(call)
    except Unanswered as fault:
        raise StageError(fault.reason, fault.message) from fault
