"""What ``plan`` answers: a new status, effects on other objects, Events, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .observation import Ref


@dataclass(frozen=True)
class Create:
    """Make an object. Making it twice is harmless: its name is the same."""

    manifest: dict[str, Any]
    ref: Ref


@dataclass(frozen=True)
class Delete:
    """Delete an object, and only the one with this uid."""

    ref: Ref
    uid: str | None = None


@dataclass(frozen=True)
class Patch:
    """Merge-patch an object."""

    ref: Ref
    patch: dict[str, Any]


Effect = Create | Delete | Patch


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event about the run; ``stage`` and ``attempt`` are for logs."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    stage: str | None = None
    attempt: str | None = None
    posted: bool = True
    """Whether it becomes an Event, or is told in logs and metrics only: Events are few, or nobody reads them."""
    key: str = ""
    """What makes it the same Event whoever tells it, where status still says it later."""


@dataclass(frozen=True)
class Decision:
    """One pass of the loop. ``status`` is written first, if it differs; then the effects; then the Events."""

    status: dict[str, Any]
    effects: tuple[Effect, ...] = ()
    events: tuple[Event, ...] = field(default_factory=tuple)
    requeue_after: float | None = None
    """Seconds after which time alone may change the decision."""
