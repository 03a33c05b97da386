"""Cache of the children and pods of runs in progress, as far as decisions read them.

The cache only saves reads and passes. It serves an attempt only if nothing about it has failed or ended and the cache is complete
(see :mod:`.expectations`); everything else is read from the cluster, and each resync begins with an empty cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from finetune_operator.api.kinds import POD, Kind
from finetune_operator.core.child_view import TOGETHER_SECONDS, child_view, is_under_way, pod_requeue_after
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import StageStatus

from .cluster import EventType, Object, RunKey
from .expectations import Expectations
from .labels import AttemptKey, attempt_of
from .lineage import Lineage, controller_uid


@dataclass(frozen=True)
class CachedAttempt:
    """An attempt from the cache: the view of its child, and its pods, ranks ascending."""

    child: Object
    pods: tuple[PodReport, ...]


@dataclass(frozen=True)
class _Child:
    attempt: AttemptKey
    view: str
    """The child as decisions read it, as JSON."""


@dataclass(frozen=True)
class _Pod:
    attempt: AttemptKey
    report: PodReport
    controller: str
    """UID of the object that controls it."""


@dataclass
class _Entry:
    """The children and pods of one run, by uid."""

    children: dict[str, _Child] = field(default_factory=dict)
    pods: dict[str, _Pod] = field(default_factory=dict)
    active: frozenset[AttemptKey] | None = None
    """The attempts in progress after the last pass: no other child affects the run. ``None`` before the first pass."""
    last_polled: dict[str, str] = field(default_factory=dict)
    """The time of the last read of each pod's log, by pod name."""

    def is_unfinished(self) -> bool:
        """Return whether an attempt in progress has a pod that has not succeeded, or no pod yet."""
        unfinished = {pod.attempt for pod in self.pods.values() if pod.report.phase != "Succeeded"}
        known = {pod.attempt for pod in self.pods.values()}
        return any(attempt in unfinished or attempt not in known for attempt in self.active or ())


class ChildCache:
    """Cache of children and pods by the namespace and name of their run."""

    def __init__(self, expectations: Expectations, lineage: Lineage) -> None:
        self._expectations = expectations
        self._lineage = lineage
        self._entries: dict[RunKey, _Entry] = {}
        self._watches_pods = False
        """Whether a watch has reported a pod: the operator may lack the right to watch them."""

    def on_event(self, key: RunKey, kind: Kind, item: Object, event_type: EventType | None, *, busy: bool) -> float | None:
        """Handle a child or pod that a watch reports.

        Args:
            key: the run that it belongs to.
            kind: its kind.
            item: the object.
            event_type: the type of the event; ``None`` if the object was only listed.
            busy: whether a pass over the run is in progress, which may have just created the child.

        Returns:
            The seconds after which the run needs a pass; ``None`` if the event affects no decision.
        """
        entry, uid = self._entries.setdefault(key, _Entry()), item["metadata"]["uid"]
        if event_type is None or (event_type == "ADDED" and uid in (entry.pods if kind == POD else entry.children)):
            self._expectations.observe_relist()
        attempt = attempt_of(item)
        relevant = busy or entry.active is None or attempt in entry.active
        if event_type == "DELETED":
            entry.children.pop(uid, None)
            entry.pods.pop(uid, None)
            return 0.0 if relevant else None
        requeue_after = self._put_pod(entry, uid, item) if kind == POD else self._put_child(key, entry, uid, item)
        return requeue_after if relevant else None

    def _put_pod(self, entry: _Entry, uid: str, item: Object) -> float | None:
        self._watches_pods = True
        before = entry.pods.get(uid)
        entry.pods[uid] = pod = _Pod(attempt_of(item), PodReport.parse(item), controller_uid(item))
        requeue_after = pod_requeue_after(before.report if before else None, pod.report)
        if requeue_after == 0.0 and pod.report.phase == "Succeeded" and entry.is_unfinished():
            return TOGETHER_SECONDS
        return requeue_after

    def _put_child(self, key: RunKey, entry: _Entry, uid: str, item: Object) -> float | None:
        child = _Child(attempt_of(item), json.dumps(child_view(item), sort_keys=True, separators=(",", ":")))
        before, entry.children[uid] = entry.children.get(uid), child
        created = before is None and self._expectations.is_expected(key, child.attempt)
        return None if before == child or created else 0.0

    def attempt(self, key: RunKey, run_uid: str, stage_status: StageStatus) -> CachedAttempt | None:
        """Return a stage's current attempt; ``None`` if it must be read, since it failed or ended or the cache is not complete.

        Children of other runs and pods of other objects do not count. The attempt is read if it is not known what controls a pod.
        """
        entry, attempt = self._entries.get(key), (stage_status.name, str(stage_status.this_attempt))
        if entry is None or not self._expectations.is_complete(key, attempt) or stage_status.state != "Running":
            return None
        children = [json.loads(child.view) for child in entry.children.values() if child.attempt == attempt]
        children = [child for child in children if controller_uid(child) == run_uid]
        if len(children) != 1 or not is_under_way(children[0]):
            return None
        uid = children[0]["metadata"]["uid"]
        found = [pod for pod in entry.pods.values() if pod.attempt == attempt]
        if any(self._lineage.is_ours(pod.controller, uid) is None for pod in found):
            return None
        pods = [pod.report for pod in found if self._lineage.is_ours(pod.controller, uid)]
        if any(pod.failed or pod.gone for pod in pods) or not self._watches_pods:
            return None
        return CachedAttempt(children[0], tuple(sorted(pods, key=lambda pod: (pod.rank, pod.name))))

    def last_polled(self, key: RunKey) -> dict[str, str]:
        """Return the time of the last read of each pod's log, by pod name. The caller that reads a log updates it."""
        return self._entries.setdefault(key, _Entry()).last_polled

    def observe_pass(self, key: RunKey, active: Iterable[StageStatus]) -> None:
        """Record the stages that have a child and have not ended after a pass. The children of all others are dropped."""
        entry = self._entries.setdefault(key, _Entry())
        entry.active = frozenset((stage_status.name, str(stage_status.this_attempt)) for stage_status in active)
        entry.children = {uid: child for uid, child in entry.children.items() if child.attempt in entry.active}
        entry.pods = {uid: pod for uid, pod in entry.pods.items() if pod.attempt in entry.active}

    def forget(self, key: RunKey) -> None:
        """Drop the children of a run, so that the next pass reads them."""
        self._entries.pop(key, None)
