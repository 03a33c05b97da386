"""Carry out a decision: status first, if it differs, onto the version that was read; then the effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.decision import Create, Decision, Delete, Effect, Event
from finetune_operator.core.observation import Ref, Rejection
from finetune_operator.core.run import Run

from .cluster import Cluster, Object
from .errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound

Tell = Callable[[Run, Event], None]
"""Takes the Events of what has come true."""


@dataclass(frozen=True)
class Applied:
    """What came of a decision.

    Attributes:
        document: the run, as it was read or as its status was written.
        made: the objects that this very call has created, as the API has stored them.
        refused: the effects that the API refuses for good, for the next decision to tell the user.
    """

    document: Object
    made: tuple[Object, ...] = ()
    rejected: Mapping[Ref, Rejection] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Of the run."""
        return str(self.document["metadata"]["resourceVersion"])


async def apply(cluster: Cluster, document: Object, decision: Decision, tell: Tell) -> Applied:
    """Do what was decided, and ``tell`` of it once the status says so.

    Raises:
        Conflict: the run changed since it was read: decide again.
        ApiError: a call failed; what was done before it stays done, and the next pass does the rest.
    """
    run = Run.parse(document)
    version = document["metadata"]["resourceVersion"]
    change = difference(run.status, decision.status)
    if change:
        patch = {"metadata": {"resourceVersion": version}, "status": change}
        document = await cluster.patch_status(FINETUNERUN, run.namespace, run.name, patch)
    made, rejected = [], {}
    try:
        for effect in decision.effects:
            try:
                item = await _carry_out(cluster, run.namespace, effect)
                if item is not None:
                    made.append(item)
            except (Invalid, Forbidden) as error:
                rejected[effect.ref] = Rejection(error.message, isinstance(error, Forbidden))
    finally:
        for event in decision.events:
            tell(run, event)
    return Applied(document, tuple(made), rejected)


async def _carry_out(cluster: Cluster, namespace: str, effect: Effect) -> Object | None:
    """The object that this very call has created, if it has."""
    try:
        if isinstance(effect, Create):
            return await cluster.create(effect.manifest)
        if isinstance(effect, Delete):
            await cluster.delete(effect.ref.kind, namespace, effect.ref.name, uid=effect.uid)
        else:
            await cluster.patch(effect.ref.kind, namespace, effect.ref.name, effect.patch)
    except (AlreadyExists, NotFound, Conflict):
        # Somebody was faster, or the object is another one by now: the next pass looks at what is there.
        return None
    return None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7396) that turns ``old`` into ``new``; empty where they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            patch[key] = difference(before, value)
        else:
            patch[key] = value
    return patch
