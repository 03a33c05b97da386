"""What is read from the cluster before a decision, reduced to what decisions need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, JOB, KINDS, SERVICE_ACCOUNT, TRAINJOB, Kind

from . import naming
from .pod_report import PodReport
from .run import Run, StageStatus
from .settings import Settings
from .times import seconds_between

Object = Mapping[str, Any]
LOOKS = 20
"""At a log, in the time that a stage has run."""
CHILD_KINDS: dict[str, Kind] = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Ref:
    """A namespaced object by kind and name."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Rejection:
    """An effect that the API refused for good: what it said."""

    message: str
    forbidden: bool = False


@dataclass(frozen=True)
class WarningEvent:
    """What a controller says of an object in an Event: its word and its sentence.

    ``seconds`` have passed since it said so first, ``lasting`` of them until it said so last.
    """

    reason: str
    message: str
    seconds: float = 0.0
    lasting: float = 0.0


class ChildState(Enum):
    """Where a Job or TrainJob stands."""

    ACTIVE = auto()
    SUSPENDED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


def child_state(child: Object) -> ChildState:
    """The state of a Job or TrainJob by its conditions, never by the last one: a resumed one keeps ``Suspended``."""
    held = {
        condition["type"]
        for condition in (child.get("status") or {}).get("conditions") or ()
        if condition.get("status") == "True"
    }
    if "Failed" in held or "FailureTarget" in held:
        return ChildState.FAILED
    if "Complete" in held or "SuccessCriteriaMet" in held:
        return ChildState.SUCCEEDED
    return ChildState.SUSPENDED if "Suspended" in held else ChildState.ACTIVE


def controller_of(item: Object) -> Object:
    """Return the reference to the object that controls an object, empty where none does."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


def is_held(child: Object) -> bool:
    """Return whether the operator suspended the child."""
    return naming.HELD_ANNOTATION in (child["metadata"].get("annotations") or {})


def failure_message(child: Object) -> str:
    """What a failed child says of itself."""
    for condition in (child.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Failed" and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""


@dataclass(frozen=True)
class Observed:
    """What :func:`finetune_operator.loop.observe.observe` found.

    Attributes:
        objects: those of :func:`needs` that exist.
        pods: pods of the stages that have a child, by stage, ranks ascending.
        logs: ends of logs, by pod.
        warning_events: what controllers say of the objects that keep a stage waiting, newest first.
        contents: digest of what each ConfigMap among ``objects`` holds; of a training bundle, that of its files.
        invalid: what the API server says against the fields of a run's pods before it starts, by stage.
        refused: effects that the API refused since the decision before.
        leftovers: all children of the run, asked for when they are to be removed.
    """

    settings: Settings
    objects: Mapping[Ref, Object] = field(default_factory=dict)
    pods: Mapping[str, tuple[PodReport, ...]] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    warning_events: Mapping[Ref, tuple[WarningEvent, ...]] = field(default_factory=dict)
    contents: Mapping[Ref, str] = field(default_factory=dict)
    invalid: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    rejected: Mapping[Ref, Rejection] = field(default_factory=dict)
    leftovers: tuple[Ref, ...] = ()

    def child(self, stage_status: StageStatus) -> Object | None:
        """The child of a stage's current attempt, if it exists."""
        return self.objects.get(child_ref(stage_status)) if stage_status.child_name else None


def child_ref(stage_status: StageStatus) -> Ref:
    """The child that a record names."""
    return Ref(CHILD_KINDS[stage_status.child_kind], stage_status.child_name)


def running_children(run: Run, objects: Mapping[Ref, Object]) -> Iterator[tuple[StageStatus, Object]]:
    """Yield each running stage with its child, where the child exists."""
    for stage_status in run.stages.values():
        child = objects.get(child_ref(stage_status)) if stage_status.child_name and stage_status.state == "Running" else None
        if child is not None:
            yield stage_status, child


def needs(run: Run, settings: Settings) -> tuple[Ref, ...]:
    """The objects that the next decision about ``run`` depends on."""
    if run.ended:
        return ()
    if not run.started:  # what the runs of a namespace share is nearly always there
        return Ref(SERVICE_ACCOUNT, naming.STAGE_ACCOUNT), Ref(CONFIGMAP, naming.entry_name(settings.entry_digest))
    found: list[Ref] = []
    workspace = run.stages.get("workspace")
    if workspace is not None and not workspace.ended:
        found += workspace_refs(run)
    found += [child_ref(stage_status) for stage_status in active_stages(run)]
    return tuple(found)


def workspace_refs(run: Run) -> tuple[Ref, ...]:
    """The claim that every stage mounts, and the shared objects."""
    return Ref(CLAIM, naming.workspace_claim(run)), *shared_refs(run)


def shared_refs(run: Run) -> tuple[Ref, ...]:
    """The account that stages run as, where that is ours, the inputs that they read, and the training bundle."""
    entry = str((run.status.get("resolved") or {}).get("entryDigest", ""))
    ours = run.resolved.service_account_name == naming.STAGE_ACCOUNT
    return (
        *((Ref(SERVICE_ACCOUNT, naming.STAGE_ACCOUNT),) if ours else ()),
        Ref(CONFIGMAP, naming.inputs_name(run.name, run.round)),
        Ref(CONFIGMAP, naming.entry_name(entry)),
    )


def active_stages(run: Run) -> tuple[StageStatus, ...]:
    """The stages whose pods matter now: those that have not ended, and those whose child is being removed."""
    if run.ended:
        return ()
    return tuple(
        stage_status
        for stage_status in run.stages.values()
        if stage_status.child_name and (not stage_status.ended or stage_status.releasing)
    )


def logs_wanted(
    run: Run, pods: Mapping[str, Sequence[PodReport]], looks: Mapping[str, str], now_stamp: str, settings: Settings
) -> tuple[str, ...]:
    """The pods whose logs' ends the next decision needs, of the ``pods`` of each active stage. ``looks``: when each was last asked.

    One stage's progress is told at a time: while there is fresh news of it, no other stage is asked. It never keeps an end waiting.
    """
    ending = any(pod.done for report in pods.values() for pod in report)
    told = now_stamp if ending else str((run.status.get("progress") or {}).get("lastReport", ""))
    wanted = []
    for stage_status in active_stages(run):
        report = pods[stage_status.name]
        last = max(told, *(looks.get(pod.name, "") for pod in report), "")
        wanted.append(log_wanted(stage_status, report, last or None, now_stamp, settings))
    return tuple(pod for pod in wanted if pod is not None)


def log_wanted(
    stage_status: StageStatus, pods: Iterable[PodReport], last_look: str | None, now_stamp: str, settings: Settings
) -> str | None:
    """The pod whose log's end the next decision needs: the one that failed, or rank 0 of a running stage when a look is due.

    One that has just begun has said nothing yet; that it runs is told first.
    """
    pods = tuple(pods)
    for pod in pods:
        if pod.failed and pod.termination is not None:
            return pod.name
    running = [pod for pod in pods if pod.phase == "Running" and not pod.done and pod.rank == 0]
    if not running or stage_status.state != "Running" or stage_status.reason == reasons.STARTING:
        return None
    due = last_look is None or (seconds_between(last_look, now_stamp) or 0.0) >= look_seconds(stage_status, now_stamp, settings)
    return running[0].name if due else None


def look_seconds(stage_status: StageStatus, now_stamp: str, settings: Settings) -> float:
    """The least time between two looks at a running stage's log.

    On a cluster each one goes through the API server to a kubelet, so that a stage of hours is looked at every few minutes: 20 times
    in what it has taken so far. Local logs are files.
    """
    active = 0.0 if settings.mode == "local" else seconds_between(stage_status.started_at, now_stamp) or 0.0
    return max(settings.progress_seconds, active / LOOKS)


REMOVABLE = (JOB, TRAINJOB, CONFIGMAP)
"""Kinds that a clean-up removes. The claim is no child."""
