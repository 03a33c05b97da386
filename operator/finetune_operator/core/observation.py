"""What is read from the cluster before a decision, as value types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from finetune_operator.api.kinds import JOB, TRAINJOB, Kind

from . import naming
from .paths import Object
from .pod_report import PodReport
from .run import StageStatus
from .settings import Settings

_CHILD_KINDS: dict[str, Kind] = {kind.name: kind for kind in (JOB, TRAINJOB)}
"""Kinds of the children of stages, by name."""


@dataclass(frozen=True)
class Ref:
    """An object by kind and name: of the run's namespace, or of the cluster if the kind has no namespaces."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Rejection:
    """The error with which the API server rejected an effect, where the same request would be rejected again."""

    message: str
    forbidden: bool = False


@dataclass(frozen=True)
class WarningEvent:
    """An Event of type Warning about an object.

    Attributes:
        seconds: time since the first occurrence.
        active_seconds: time from the first occurrence to the last.
    """

    reason: str
    message: str
    seconds: float = 0.0
    active_seconds: float = 0.0


class ChildState(Enum):
    """The state of a Job or TrainJob."""

    ACTIVE = auto()
    SUSPENDED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


def child_state(child: Object) -> ChildState:
    """Return the state of a Job or TrainJob, from all of its conditions: a resumed one keeps ``Suspended`` with status False."""
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
    """Return the message of a child's condition ``Failed``, empty where it has none."""
    for condition in (child.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Failed" and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""


@dataclass(frozen=True)
class Observed:
    """The state of the cluster before a decision.

    Attributes:
        objects: those of :func:`finetune_operator.core.reads.needs` that exist.
        pods: pods of the stages that have a child, by stage, ranks ascending.
        logs: last lines of logs, by pod.
        warning_events: of the objects that keep a stage waiting, newest first.
        contents: digest of the content of each ConfigMap among ``objects``; of a training bundle, that of its files. Empty for a ConfigMap
            that is not immutable.
        invalid: fields of the run's pods that the API server rejects in a dry run before the run starts, by stage.
        rejected: effects of the last decision that the API server rejected.
        leftovers: the UIDs of all children of the run, read only when they are to be removed.
    """

    settings: Settings
    objects: Mapping[Ref, Object] = field(default_factory=dict)
    pods: Mapping[str, tuple[PodReport, ...]] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    warning_events: Mapping[Ref, tuple[WarningEvent, ...]] = field(default_factory=dict)
    contents: Mapping[Ref, str] = field(default_factory=dict)
    invalid: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    rejected: Mapping[Ref, Rejection] = field(default_factory=dict)
    leftovers: Mapping[Ref, str] = field(default_factory=dict)

    def child(self, stage_status: StageStatus) -> Object | None:
        """Return the child of a stage's current attempt, ``None`` where it does not exist."""
        return self.objects.get(child_ref(stage_status)) if stage_status.child_name else None


def child_ref(stage_status: StageStatus) -> Ref:
    """Return the child that the status of a stage names."""
    return Ref(_CHILD_KINDS[stage_status.child_kind], stage_status.child_name)
