"""Carrying out a decision: the status is written first, onto the version that was read, and then the effects are carried out."""

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

RecordEvent = Callable[[Run, Event], None]
"""Records an Event once the status contains what it reports."""


@dataclass(frozen=True)
class Applied:
    """The result of carrying out a decision.

    Attributes:
        document: the run, as it was read or as its status was written.
        created: the objects that this call created, as the API server stored them.
        rejected: the effects that the API server rejected as invalid or forbidden; the next decision reports them.
    """

    document: Object
    created: tuple[Object, ...] = ()
    rejected: Mapping[Ref, Rejection] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The resource version of the run."""
        return str(self.document["metadata"]["resourceVersion"])


async def apply(cluster: Cluster, document: Object, decision: Decision, record: RecordEvent) -> Applied:
    """Carry out a decision, and ``record`` its Events once the status is written.

    Raises:
        Conflict: the run changed since it was read.
        ApiError: a call failed. The calls before it have taken effect, and the next pass makes the others.
    """
    run = Run.parse(document)
    version = document["metadata"]["resourceVersion"]
    change = difference(run.status, decision.status)
    if change:
        patch = {"metadata": {"resourceVersion": version}, "status": change}
        document = await cluster.patch_status(FINETUNERUN, run.namespace, run.name, patch)
    created, rejected = [], {}
    try:
        for effect in decision.effects:
            try:
                item = await _carry_out(cluster, run.namespace, effect)
                if item is not None:
                    created.append(item)
            except (Invalid, Forbidden) as error:
                rejected[effect.ref] = Rejection(error.message, isinstance(error, Forbidden))
    finally:
        for event in decision.events:
            record(run, event)
    return Applied(document, tuple(created), rejected)


async def _carry_out(cluster: Cluster, namespace: str, effect: Effect) -> Object | None:
    """Carry out an effect. Return the object that it created, if any."""
    try:
        if isinstance(effect, Create):
            return await cluster.create(effect.manifest)
        if isinstance(effect, Delete):
            await cluster.delete(effect.ref.kind, namespace, effect.ref.name, uid=effect.uid)
        else:
            await cluster.patch(effect.ref.kind, namespace, effect.ref.name, effect.patch)
    except (AlreadyExists, NotFound, Conflict):
        # Another client was faster, or the object was replaced: the next pass reads the current state.
        return None
    return None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) that turns ``old`` into ``new``; empty if they are equal."""
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
