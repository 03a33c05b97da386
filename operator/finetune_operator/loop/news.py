"""What the watches have told of each run that is under way, so that an event which says nothing new wakes nobody.

It is a saving, never the truth: what is decided upon an old run is refused, whatever went wrong or has ended is read from the cluster,
and every resync begins by forgetting. An attempt is taken as told only if this process has made its child, and no watch had a break
since: a deletion during a break is never told. A child's life is a dozen events, of which decisions notice five.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from finetune_operator.api.kinds import POD, Kind
from finetune_operator.core.naming import ATTEMPT_LABEL, STAGE_LABEL
from finetune_operator.core.observation import ChildState, child_state
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import StageStatus
from finetune_operator.core.waiting import STARTING_SECONDS

from .cluster import Object

Key = tuple[str, str]
"""Namespace and name of a run."""
Told = Literal["ADDED", "MODIFIED", "DELETED"] | None
"""What a watch says of an object; ``None`` where it was only listed."""
Wake = float | None
"""Seconds after which somebody should look at the run; ``None`` where nothing new was told."""

_COUNTERS = frozenset({
    "active", "ready", "succeeded", "failed", "terminating", "uncountedTerminatedPods", "startTime", "completionTime", "jobsStatus",
})  # fmt: skip
"""What the status of a Job or TrainJob says of its pods, which say it earlier and better themselves."""
_ON_THE_WAY = frozenset({"ContainerCreating", "PodInitializing"})
"""What a kubelet says of containers that start as all do."""
RUNNING_SECONDS = 0.25
"""From a pod's start to the look at it. Nobody waits for that news, and the end of a short one comes with it."""
TOGETHER_SECONDS = 0.1
"""From a pod's good end to the look at it while others go on: what begins together often ends together, and one write tells both."""
_NOISE = frozenset({"resourceVersion", "managedFields", "generation"})
_VERSIONS = 8
"""Of a run, that are known to be our own: on a full cluster a watch tells of a write when the next ones are made."""


@dataclass(frozen=True)
class ToldAttempt:
    """An attempt as the watches have told of it: its child, as far as decisions read it, and its pods, ranks ascending."""

    child: Object
    pods: tuple[PodReport, ...]


@dataclass
class _Run:
    """What was told of one run."""

    versions: tuple[str, ...] = ()
    """Of the object itself: those that the last passes have read or written."""
    heard: bool = False
    """Whether a watch has told of the object since everything was forgotten: without one, nobody would tell of a change."""
    document: str | None = None
    """The object as the last pass has left it, as JSON: a tenth of what it is as dictionaries."""
    news: str | None = None
    """The version that was told while a pass was under way."""
    children: dict[str, tuple[_Attempt, str]] = field(default_factory=dict)
    """By uid: what decisions read of each, as JSON."""
    pods: dict[str, _Pod] = field(default_factory=dict)
    active: frozenset[_Attempt] | None = None
    """The attempts that were under way after the last pass; nothing else that belongs to the run can move it."""
    looks: dict[str, str] = field(default_factory=dict)
    """By pod: when its log was last asked for."""
    born: dict[_Attempt, int] = field(default_factory=dict)
    """Attempts whose child this process has made, and the number of breaks before."""

    def goes_on(self) -> bool:
        """Whether a pod of any attempt that is under way has not ended well."""
        unfinished = {pod.attempt for pod in self.pods.values() if pod.report.phase != "Succeeded"}
        told = {pod.attempt for pod in self.pods.values()}
        return any(attempt in unfinished or attempt not in told for attempt in self.active or ())


_Attempt = tuple[str, str]
"""Stage and attempt, as their labels say."""


@dataclass(frozen=True)
class _Pod:
    attempt: _Attempt
    report: PodReport


class News:
    """What was told last of each run that is under way, and of what belongs to it."""

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}
        self._settled: set[Key] = set()
        self._breaks = 0
        self._pods_are_told = False

    def of_run(self, key: Key, version: str, *, busy: bool) -> bool:
        """Take note of a version of the run; whether a pass has to look at it. Of a ``busy`` one :meth:`passed` will tell."""
        self._settled.discard(key)
        found = self._runs.setdefault(key, _Run())
        found.heard = True
        if busy:
            found.news = version
            return False
        if version in found.versions:
            return False
        found.document = None
        return True

    def take(self, key: Key) -> Object | None:
        """The run as the last pass has left it, once, if nobody has told of a change; whoever wants more reads it from the cluster.

        A decision upon one that has changed meanwhile comes to nothing: it begins with a write of the status, which the API server
        refuses for any version but its own.
        """
        found = self._runs.get(key)
        if found is None or found.document is None:
            return None
        text, found.document = found.document, None
        document: Object = json.loads(text)
        return document

    def of_child(self, key: Key, kind: Kind, item: Object, told: Told, *, busy: bool) -> Wake:
        """Take note of a child or pod; when to look at what it says. A ``busy`` pass may just be making it."""
        if key in self._settled:
            return None
        found, uid = self._runs.setdefault(key, _Run()), item["metadata"]["uid"]
        if told is None or (told == "ADDED" and uid in (found.pods if kind == POD else found.children)):
            self._breaks += 1
        attempt = _attempt_of(item)
        matters = busy or found.active is None or attempt in found.active
        if told == "DELETED":
            found.children.pop(uid, None)
            found.pods.pop(uid, None)
            return 0.0 if matters else None
        if kind == POD:
            self._pods_are_told = True
            before = found.pods.get(uid)
            found.pods[uid] = pod = _Pod(attempt, PodReport.parse(item))
            wake = _when(before.report if before else None, pod.report) if matters else None
            return TOGETHER_SECONDS if wake == 0.0 and pod.report.phase == "Succeeded" and found.goes_on() else wake
        said = attempt, _said(item)
        known, found.children[uid] = found.children.get(uid), said
        ours = known is None and attempt in found.born  # it is there: whoever made it expects that
        return 0.0 if matters and known != said and not ours else None

    def making(self, key: Key, child: Object) -> None:
        """This process is about to make the child of an attempt: from its first pod on, all will be told."""
        self._runs.setdefault(key, _Run()).born[_attempt_of(child)] = self._breaks

    def not_made(self, key: Key, child: Object) -> None:
        """Somebody else had made it: what became of it until now is not known."""
        self._runs.setdefault(key, _Run()).born.pop(_attempt_of(child), None)

    def attempt(self, key: Key, stage_status: StageStatus) -> ToldAttempt | None:
        """A stage's attempt that goes its way; ``None`` where something went wrong or has ended, or not all need have been told."""
        found, attempt = self._runs.get(key), (stage_status.name, str(stage_status.this_attempt))
        if found is None or found.born.get(attempt) != self._breaks or stage_status.state != "Running":
            return None
        children = [json.loads(said) for told, said in found.children.values() if told == attempt]
        pods = [pod.report for pod in found.pods.values() if pod.attempt == attempt]
        if len(children) != 1 or child_state(children[0]) is not ChildState.ACTIVE or children[0]["spec"]["suspend"]:
            return None
        if any(pod.failed or pod.gone for pod in pods) or not self._pods_are_told:  # perhaps nobody may watch pods
            return None
        return ToldAttempt(children[0], tuple(sorted(pods, key=lambda pod: (pod.rank, pod.name))))

    def looks(self, key: Key) -> dict[str, str]:
        """When the log of each pod was last asked for; whoever asks writes it down."""
        return self._runs.setdefault(key, _Run()).looks

    def passed(self, key: Key, active: Iterable[StageStatus], read: str, left: Object) -> bool:
        """A pass is over; whether the run was told to have changed meanwhile.

        Args:
            key: the run.
            active: its stages that have a child and have not ended.
            read: the version that the pass began with.
            left: the run as the pass has left it.
        """
        if key in self._settled:
            return False
        found = self._runs.setdefault(key, _Run())
        found.active = frozenset((stage_status.name, str(stage_status.this_attempt)) for stage_status in active)
        found.children = {uid: told for uid, told in found.children.items() if told[0] in found.active}
        found.pods = {uid: pod for uid, pod in found.pods.items() if pod.attempt in found.active}
        found.versions = (*found.versions[2 - _VERSIONS :], read, left["metadata"]["resourceVersion"])
        missed = found.news is not None and found.news not in found.versions
        found.news = None
        metadata = {name: value for name, value in left["metadata"].items() if name != "managedFields"}
        found.document = None if missed or not found.heard else json.dumps(left | {"metadata": metadata}, separators=(",", ":"))
        return missed

    def forget(self, key: Key) -> None:
        """Let the next pass read everything anew."""
        self._runs.pop(key, None)
        self._settled.discard(key)

    def settle(self, key: Key) -> None:
        """The run has ended: whatever becomes of its children wakes nobody, until the run itself changes."""
        self._runs.pop(key, None)
        self._settled.add(key)


def _attempt_of(item: Object) -> _Attempt:
    labels = item["metadata"].get("labels") or {}
    return labels.get(STAGE_LABEL, ""), labels.get(ATTEMPT_LABEL, "")


def _when(before: PodReport | None, pod: PodReport) -> Wake:
    """When to look at a pod. All are made, get a node and start: what may keep one from that is looked for within seconds."""
    was = _plain(before) if before else PodReport(pod.name, pod.rank, created_at=pod.created_at)
    is_ = _plain(pod)
    if is_ == was:
        return STARTING_SECONDS if before is None else None
    if replace(is_, placed=was.placed) == was:
        return STARTING_SECONDS
    started = pod.phase == "Running" and replace(is_, placed=was.placed, phase=was.phase) == was
    return RUNNING_SECONDS if started else 0.0


def _plain(pod: PodReport) -> PodReport:
    return replace(pod, waiting="", waiting_message="") if pod.waiting in _ON_THE_WAY else pod


def _said(item: Mapping[str, Any]) -> str:
    """What decisions read of a Job or TrainJob, as JSON: it tells two states apart, too."""
    metadata = {name: value for name, value in item["metadata"].items() if name not in _NOISE}
    status = {name: value for name, value in (item.get("status") or {}).items() if name not in _COUNTERS}
    status["conditions"] = [one for one in status.get("conditions") or () if one.get("status") == "True"]
    spec = {"suspend": bool((item.get("spec") or {}).get("suspend"))}
    return json.dumps({"metadata": metadata, "spec": spec, "status": status}, sort_keys=True, separators=(",", ":"))
