"""The parts of a Pod object that decisions need.

The stage's container is found by its name. Kubelets sort container statuses by name, and a service mesh or an admission webhook may
add containers of its own before, beside or around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import naming
from .paths import Object

STARTS = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Waiting reasons of a container that starts normally."""


@dataclass(frozen=True)
class Termination:
    """How a container ended: exit code, the kubelet's reason (``OOMKilled``, ``Error``), and the termination message."""

    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: str | None = None
    started_at: str | None = None


@dataclass(frozen=True)
class PodReport:
    """One pod of a stage's attempt.

    Attributes:
        termination: how the stage's container ended, whatever other containers of the pod do.
        waiting: the kubelet's reason for a container that cannot start; ``waiting_message`` names the container if it is another one.
        unschedulable: the scheduler's message.
        rejected: the kubelet's reason for a pod that it did not admit or that it removed (``Evicted``, ``OutOfmemory``).
        init_failure: the init container that failed, and how, where the stage's container never started because of it.
        sidecar_runs: the stage's container has ended and another one of the pod has not.
        gone: being deleted, so that its end is not a failure of the stage.
        placed: bound to a node.
        image, image_id: the stage's image by the name in the pod, and as the kubelet identifies it. No pass waits for them, so they are not
            compared.
        running_since: when the stage's container started, while it runs. No decision follows from it, so it is not compared.
    """

    name: str
    rank: int = 0
    phase: str = "Pending"
    termination: Termination | None = None
    waiting: str = ""
    waiting_message: str = ""
    unschedulable: str = ""
    rejected: str = ""
    rejected_message: str = ""
    init_failure: str = ""
    sidecar_runs: bool = False
    disrupted: bool = False
    gone: bool = False
    placed: bool = False
    created_at: str | None = None
    image: str = field(default="", compare=False)
    image_id: str = field(default="", compare=False)
    running_since: str | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, pod: Object) -> PodReport:
        """Return the report on a Pod object."""
        metadata, status = pod["metadata"], pod.get("status") or {}
        labels = metadata.get("labels") or {}
        conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
        scheduled = conditions.get("PodScheduled") or {}
        container = naming.container_name(labels.get(naming.STAGE_LABEL, ""))
        state = _stage_state(status, container)
        waiting, waiting_message = _waiting(status, container, state)
        index = labels.get("batch.kubernetes.io/job-completion-index", "0")
        return cls(
            name=metadata["name"], rank=int(index) if index.isdecimal() else 0, phase=status.get("phase", "Pending"),
            termination=_termination(state), waiting=waiting, waiting_message=waiting_message,
            unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
            rejected=status.get("reason", "") if status.get("phase") == "Failed" else "",
            rejected_message=status.get("message", ""), init_failure=_init_failure(status),
            sidecar_runs=bool(state.get("terminated")) and any(map(_has_not_ended, _others(status, container))),
            disrupted=(conditions.get("DisruptionTarget") or {}).get("status") == "True",
            gone=bool(metadata.get("deletionTimestamp")), placed=bool((pod.get("spec") or {}).get("nodeName")),
            created_at=metadata.get("creationTimestamp"), running_since=(state.get("running") or {}).get("startedAt"),
            image=_named(pod.get("spec") or {}, "containers", container).get("image", ""),
            image_id=_named(status, "containerStatuses", container).get("imageID", ""),
        )  # fmt: skip

    @property
    def started_at(self) -> str | None:
        """When the stage's container started, ``None`` if it did not."""
        return self.termination.started_at if self.termination else self.running_since

    @property
    def ended_at(self) -> str | None:
        """When the stage's container ended, ``None`` while it runs."""
        return self.termination.finished_at if self.termination else None

    @property
    def failed(self) -> bool:
        """Whether the stage's container failed, or the pod never ran it."""
        return (self.termination is not None and self.termination.exit_code != 0) or (
            self.phase == "Failed" and self.termination is None
        )

    @property
    def succeeded(self) -> bool:
        """Whether the stage's container ended with exit code 0."""
        return self.termination is not None and self.termination.exit_code == 0

    @property
    def over(self) -> bool:
        """Whether every container has ended, so that the pod holds nothing of its node. Kubelets set the phase a moment later."""
        return self.phase in ("Succeeded", "Failed") or (self.termination is not None and not self.sidecar_runs)

    @property
    def done(self) -> bool:
        """Whether the stage's container has ended, or the pod has without it."""
        return self.termination is not None or self.phase in ("Succeeded", "Failed")


def _named(part: Object, field: str, container: str) -> Object:
    """Return the entry of a container in a list of the pod's spec or status, an empty object where there is none."""
    return next((found for found in part.get(field) or () if found.get("name") == container), {})


def _stage_state(status: Object, container: str) -> Object:
    """Return the state of the stage's container; one that the kubelet restarted in place shows how it ended before."""
    found = _named(status, "containerStatuses", container)
    last = (found.get("lastState") or {}).get("terminated")
    state: Object = found.get("state") or {}
    return {"terminated": last} if last and not state.get("terminated") else state


def _termination(state: Object) -> Termination | None:
    ended = state.get("terminated")
    if ended is None:
        return None
    return Termination(
        int(ended.get("exitCode", 0)), ended.get("reason", ""), ended.get("message", ""), ended.get("finishedAt"),
        ended.get("startedAt"),
    )  # fmt: skip


def _waiting(status: Object, container: str, state: Object) -> tuple[str, str]:
    """Return why the stage's container does not start: its own reason, else that of another container which holds it back."""
    own = state.get("waiting") or {}
    reason, message = own.get("reason", ""), own.get("message", "")
    if reason not in STARTS or state.get("running") is not None or state.get("terminated"):
        return reason, message
    for other in _others(status, container):
        blocked = (other.get("state") or {}).get("waiting") or {}
        if blocked.get("reason", "") not in STARTS:
            return blocked["reason"], f"container {other['name']}: {blocked.get('message') or blocked['reason']}"
    return reason, message


def _others(status: Object, container: str) -> Iterator[Object]:
    yield from status.get("initContainerStatuses") or ()
    yield from (found for found in status.get("containerStatuses") or () if found.get("name") != container)


def _has_not_ended(other: Object) -> bool:
    return not (other.get("state") or {}).get("terminated")


def _init_failure(status: Object) -> str:
    """Return the failure of the init container that ended the pod. One that failed and is retried did not end it."""
    if status.get("phase") != "Failed":
        return ""
    for found in status.get("initContainerStatuses") or ():
        ended = (found.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            words = ended.get("message") or ended.get("reason") or ""
            return f"init container {found['name']} ended with exit code {ended['exitCode']}{f' ({words})' if words else ''}"
    return ""
