"""Blockers: conditions that keep a stage from starting, found by the kubelet, the scheduler, controllers or the API server.

A blocker is not a failure: the run reports it and resumes when it is removed. Most blockers show in the status of pods (``waiting``,
``unschedulable``). Where pods or volumes are missing, only Events explain why; :func:`unexplained` returns the objects whose Events are
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from finetune_contract.reasons import Reason
from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, POD
from finetune_operator.api.stages import TRAINING

from . import naming, stages
from .messages import READ_LIMIT
from .naming import TRAINJOB_CONTAINER as NODE
from .observation import ChildState, Ref, Rejection, WarningEvent, child_ref, child_state
from .paths import Object
from .pod_report import PodReport
from .reads import running_children, shared_refs
from .run import Run, StageStatus
from .times import moment

Blocker = tuple[Reason, str]
"""The reason, and the message of the component that found it."""

NO_PODS_SECONDS = 30.0
"""A child without pods for that long is reported even without an Event: some controllers write only to their logs."""
GRACE_SECONDS = 2.0
"""A child without pods, or a pod without a node, for that long is blocked: controllers need milliseconds."""
_MOUNT_SECONDS = 5.0
"""A container that is being created for that long may wait for a volume."""
_PROVISIONING_SECONDS = 30.0
"""A claim that waits for an external provisioner for that long has none."""

_WAITING: tuple[tuple[tuple[str, ...], Reason], ...] = (
    (
        ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"),
        reasons.IMAGE_PULL_FAILED,
    ),
    (("CreateContainerConfigError",), reasons.SECRET_MISSING),
    (("CreateContainerError", "RunContainerError", "PostStartHookError", "CrashLoopBackOff"), reasons.START_FAILED),
)
_NAME = r"\"[^\"]{0,253}\""
"""A name in quotes. Repetitions are bounded: the time of a search is then linear in the message, which anybody may have written."""
_REJECTIONS: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(r"exceeded quota|must specify .{0,200}quota|failed quota"), reasons.QUOTA_EXCEEDED),
    (re.compile(r"violates PodSecurity"), reasons.POD_SECURITY),
    (re.compile(rf"serviceaccounts? {_NAME} not found"), reasons.SERVICE_ACCOUNT_NOT_FOUND),
    (re.compile(rf"TrainingRuntime\S{{0,80}} {_NAME} not found|TrainingRuntime must be created"), reasons.RUNTIME_NOT_FOUND),
    (re.compile(r"unknown field \"spec\.(podTemplateOverrides|runtimePatches)"), reasons.TRAINER_CHANGED),
    (re.compile(r"cannot \w+ resource \""), reasons.FORBIDDEN),
)
_OUTAGE = re.compile(
    r"connection (refused|reset)|broken pipe|\bEOF\b|i/o timeout|TLS handshake|deadline exceeded|timed out|no route to host"
    r"|failed calling webhook|no endpoints available|etcdserver|leader changed|Internal error occurred|too many requests"
    r"|server is currently unable|object has been modified|^Unauthorized",
    re.IGNORECASE,
)
"""Messages of Events of controllers whose request to the API server failed and is retried."""
_ANSWER = re.compile(r"denied the request|is forbidden:|is invalid:")
"""Messages of answers of the API server, in which names and values may match :data:`_OUTAGE`."""
_UNSCHEDULABLE: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(rf"persistentvolumeclaim {_NAME} not found"), reasons.CLAIM_NOT_FOUND),
    (
        re.compile(rf"bound to non-existent (persistentvolume|pv)|persistentvolumeclaim {_NAME} is being deleted", re.IGNORECASE),
        reasons.CLAIM_LOST,
    ),
    (re.compile(r"Insufficient \S{0,80}gpu", re.IGNORECASE), reasons.GPU_UNAVAILABLE),
    (re.compile(r"Insufficient (cpu|memory|ephemeral-storage)"), reasons.NODES_TOO_SMALL),
)
_MOUNT: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (
        re.compile(rf"(secret|configmap)s? {_NAME} not found|non-?existent (secret|config) key", re.IGNORECASE),
        reasons.SECRET_MISSING,
    ),
)
_CLAIM: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(rf"storageclass\S{{0,80}} {_NAME} not found"), reasons.STORAGE_CLASS_NOT_FOUND),
    (
        re.compile(r"ReadWriteMany|RWX|MULTI_NODE|only supports? ReadWriteOnce|access ?mode", re.IGNORECASE),
        reasons.NO_SHARED_VOLUMES,
    ),
)
_OUTAGE_SECONDS = 30.0
"""An outage that a controller reports for that long is more than a restart of the API server."""
_UNBOUND = re.compile(r"unbound immediate PersistentVolumeClaim", re.IGNORECASE)
_NO_FAULT = frozenset({"WaitForFirstConsumer", "WaitForPodScheduled", "Provisioning", "ProvisioningSucceeded"})
_PROMISES = frozenset({"ExternalProvisioning"})


def unexplained(
    run: Run, objects: Mapping[Ref, Object], pods: Mapping[str, tuple[PodReport, ...]], now: datetime
) -> tuple[Ref, ...]:
    """Return the children, pods and the claim whose Events are read: a stage waits for them, and no pod shows why."""
    found: list[Ref] = []
    for stage_status, child in running_children(run, objects):
        if child_state(child) is not ChildState.ACTIVE or (child.get("spec") or {}).get("suspend"):
            continue
        reports = pods.get(stage_status.name, ())
        if len(reports) < expected_pods(run, stage_status) and child_seconds(child, now) >= GRACE_SECONDS:
            found.append(child_ref(stage_status))
        if any(_may_wait_for_claim(pod) for pod in reports):
            found += _claims(run, stage_status)
        found += [
            Ref(POD, pod.name)
            for pod in reports
            if may_wait_for_mounts(pod) and seconds_since(pod.created_at, now) >= _MOUNT_SECONDS
        ]
    return tuple(dict.fromkeys(found))


def blocker(
    run: Run,
    stage_status: StageStatus,
    child: Object,
    pods: Sequence[PodReport],
    *,
    warning_events: Mapping[Ref, tuple[WarningEvent, ...]],
    now: datetime,
) -> Blocker | None:
    """Return what keeps an attempt from starting, ``None`` where nothing does: from its pods, else from Events."""
    return next(_blockers(run, stage_status, pods, warning_events, now), None) or _without_pods(
        run, stage_status, child, pods, now
    )


def _without_pods(run: Run, stage_status: StageStatus, child: Object, pods: Sequence[PodReport], now: datetime) -> Blocker | None:
    """Return the blocker of a child whose pods do not appear. A child that the user or a queue suspended creates no pods."""
    expected = expected_pods(run, stage_status)
    suspended = child_state(child) is not ChildState.ACTIVE or (child.get("spec") or {}).get("suspend")
    if suspended or len(pods) >= expected or child_seconds(child, now) < NO_PODS_SECONDS:
        return None
    name = stage_status.child_name
    objects = f"job/{name}" if stage_status.child_kind == "Job" else f"trainjob/{name} jobset/{name} job/{name}-{NODE}-0"
    wrong = f"{stage_status.child_kind} {name}: {len(pods)} of {expected} pods exist after {NO_PODS_SECONDS:.0f} seconds or more"
    return reasons.NO_PODS, f"{wrong}; run oc describe {objects} -n {run.namespace} and read the conditions and Events"


def child_seconds(child: Object, now: datetime) -> float:
    """Return the seconds since a child was created or last resumed."""
    since = [str(child["metadata"].get("creationTimestamp") or "")]
    conditions = (child.get("status") or {}).get("conditions") or ()
    since += [str(one.get("lastTransitionTime") or "") for one in conditions if one["type"] == "Suspended"]
    return seconds_since(max(since), now)


def _blockers(
    run: Run,
    stage_status: StageStatus,
    pods: Iterable[PodReport],
    warning_events: Mapping[Ref, tuple[WarningEvent, ...]],
    now: datetime,
) -> Iterator[Blocker]:
    for pod in pods:
        yield from ((reason, pod.waiting_message or pod.waiting) for words, reason in _WAITING if pod.waiting in words)
        if pod.unschedulable and not _UNBOUND.search(pod.unschedulable) and seconds_since(pod.created_at, now) >= GRACE_SECONDS:
            yield _match(_UNSCHEDULABLE, pod.unschedulable, reasons.UNSCHEDULABLE)
        for warning_event in _foreign(run, warning_events.get(Ref(POD, pod.name), ())):
            yield _match(_MOUNT, warning_event.message, reasons.START_FAILED)
        if _may_wait_for_claim(pod):
            for ref in _claims(run, stage_status):
                yield from _of_claim(warning_events.get(ref, ()))
    for warning_event in _foreign(run, warning_events.get(child_ref(stage_status), ())):
        found = _match(_REJECTIONS, warning_event.message, reasons.CHILD_REJECTED)
        if found[0] is not reasons.CHILD_REJECTED or not _is_outage(warning_event.message):
            yield found
        elif warning_event.active_seconds >= _OUTAGE_SECONDS:
            yield reasons.API_UNAVAILABLE, warning_event.message


def _is_outage(message: str) -> bool:
    return bool(_OUTAGE.search(message[:READ_LIMIT])) and not _ANSWER.search(message[:READ_LIMIT])


def _foreign(run: Run, warning_events: Iterable[WarningEvent]) -> Iterator[WarningEvent]:
    """Yield the Events that are not about a missing object that the operator restores (:mod:`.shared_objects`)."""
    restored = tuple(f'"{ref.name}" not found' for ref in shared_refs(run))
    yield from (
        warning_event for warning_event in warning_events if not any(words in warning_event.message for words in restored)
    )


def _claims(run: Run, stage_status: StageStatus) -> tuple[Ref, ...]:
    """Return the claims that the pods of a stage mount."""
    names = (naming.workspace_claim(run), *stages.GRAPH.programs[stage_status.name].claims(run))
    return tuple(Ref(CLAIM, name) for name in names)


def _of_claim(warning_events: Iterable[WarningEvent]) -> Iterator[Blocker]:
    for warning_event in warning_events:
        if warning_event.reason in _NO_FAULT or (
            warning_event.reason in _PROMISES and warning_event.seconds < _PROVISIONING_SECONDS
        ):
            continue
        yield _match(_CLAIM, warning_event.message, reasons.CLAIM_PENDING)


def reason_of_rejection(rejected: Rejection) -> tuple[Reason, bool]:
    """Return why the API server rejected an object, and whether the cause can be removed while the run waits."""
    reason, _ = _match(_REJECTIONS, rejected.message, reasons.CHILD_REJECTED)
    return reason, rejected.forbidden or reason is not reasons.CHILD_REJECTED


def _match(table: tuple[tuple[re.Pattern[str], Reason], ...], message: str, default: Reason) -> Blocker:
    message = message[:READ_LIMIT]
    return next((reason for pattern, reason in table if pattern.search(message)), default), message


def expected_pods(run: Run, stage_status: StageStatus) -> int:
    """Return the number of pods of the child of an attempt."""
    return run.resolved.training.workers if stage_status.name == TRAINING.name else 1


def _may_wait_for_claim(pod: PodReport) -> bool:
    """Return whether a pod waits for the claim. The scheduler may leave out a message while a volume is being provisioned."""
    return pod.phase == "Pending" and not pod.placed and (not pod.unschedulable or bool(_UNBOUND.search(pod.unschedulable)))


def may_wait_for_mounts(pod: PodReport) -> bool:
    """Return whether a pod has a node and may wait there for a volume."""
    return pod.phase == "Pending" and pod.placed and pod.waiting in ("", "ContainerCreating", "PodInitializing")


def seconds_since(created_at: str | None, now: datetime) -> float:
    """Return the age of an object in seconds, 0 where its creation time is unknown."""
    return (now - moment(created_at)).total_seconds() if created_at else 0.0
