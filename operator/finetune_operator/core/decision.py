"""What ``plan`` returns: a new status, effects on other objects, Events, and when to call it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .observation import Ref


@dataclass(frozen=True)
class Create:
    """Create an object. A second creation fails without harm, because the name is the same."""

    manifest: dict[str, Any]
    ref: Ref


@dataclass(frozen=True)
class Delete:
    """Delete an object if it has this uid."""

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
    """Whether it becomes an Event, or appears in logs and metrics only: too many Events hide the important ones."""
    key: str = ""
    """The identity of an Event that can be derived from status again, so that it is not posted twice."""


@dataclass(frozen=True)
class Decision:
    """One pass of the loop. ``status`` is written first, if it differs; then the effects; then the Events."""

    status: dict[str, Any]
    effects: tuple[Effect, ...] = ()
    events: tuple[Event, ...] = field(default_factory=tuple)
    requeue_after: float | None = None
    """Seconds after which time alone may change the decision."""
