"""Which objects, pods and logs are read from the cluster before a decision about a run, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from finetune_contract.reasons import INPUTS_REPLACED
from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, JOB, SERVICE_ACCOUNT, TRAINJOB
from finetune_operator.api.stages import WORKSPACE

from . import naming, stages
from .observation import Ref, child_ref
from .paths import Object
from .pod_report import PodReport
from .run import Run, StageStatus
from .settings import Settings
from .times import moment, seconds_between
from .trainjob_reports import replaces_log

POLLS = 20
"""How often a log has been read, at most, in the time that its stage has run."""
REMOVABLE = (JOB, TRAINJOB, CONFIGMAP)
"""Kinds that a cleanup removes. The claim is not a child of the run."""


def running_children(run: Run, objects: Mapping[Ref, Object]) -> Iterator[tuple[StageStatus, Object]]:
    """Yield each running stage whose child exists, with the child."""
    for stage_status in run.stages.values():
        child = objects.get(child_ref(stage_status)) if stage_status.child_name and stage_status.state == "Running" else None
        if child is not None:
            yield stage_status, child


def needs(run: Run, settings: Settings) -> tuple[Ref, ...]:
    """Return the objects that the next decision about ``run`` depends on."""
    if run.ended:
        return ()
    if not run.started:  # earlier runs of the namespace have usually created these
        return Ref(SERVICE_ACCOUNT, naming.STAGE_ACCOUNT), Ref(CONFIGMAP, naming.bundle_name(settings.bundle_digest))
    found: list[Ref] = []
    workspace = run.stages.get(WORKSPACE.name)
    if workspace is not None and not workspace.ended:
        found += workspace_refs(run)
    found += [child_ref(stage_status) for stage_status in active_stages(run)]
    if any(one.state == "Retrying" and one.reason == INPUTS_REPLACED.name for one in run.stages.values()):
        found += [ref for ref in shared_refs(run) if ref not in found]
    return (*found, *lookups(run, {}))


def lookups(run: Run, objects: Mapping[Ref, Object]) -> tuple[Ref, ...]:
    """Return the objects that the stages which may start next look up, as far as ``objects``, which were read before, determine them."""
    workspace = run.stages.get(WORKSPACE.name)
    if run.ended or run.spec.get("suspend") or workspace is None or workspace.state == "Pending":
        return ()
    pending = {stage_status.name for stage_status in run.stages.values() if stage_status.state == "Pending"}
    return tuple(ref for stage in stages.GRAPH.programs.values() if stage.name in pending for ref in stage.lookups(run, objects))


def workspace_refs(run: Run) -> tuple[Ref, ...]:
    """Return the claim that every stage mounts, and the shared objects."""
    return Ref(CLAIM, naming.workspace_claim(run)), *shared_refs(run)


def shared_refs(run: Run) -> tuple[Ref, ...]:
    """Return the ServiceAccount of stages if the operator creates it, the ConfigMap with the inputs, and the training bundle."""
    bundle = str((run.status.get("resolved") or {}).get("entryDigest", ""))
    managed = run.resolved.service_account_name == naming.STAGE_ACCOUNT
    return (
        *((Ref(SERVICE_ACCOUNT, naming.STAGE_ACCOUNT),) if managed else ()),
        Ref(CONFIGMAP, naming.inputs_name(run.name, run.round)),
        Ref(CONFIGMAP, naming.bundle_name(bundle)),
    )


def active_stages(run: Run) -> tuple[StageStatus, ...]:
    """Return the stages whose pods are read: those that have not ended, and those whose child is being removed."""
    if run.ended:
        return ()
    return tuple(
        stage_status
        for stage_status in run.stages.values()
        if stage_status.child_name and (not stage_status.ended or stage_status.releasing)
    )


def logs_to_read(
    run: Run,
    objects: Mapping[Ref, Object],
    pods: Mapping[str, Sequence[PodReport]],
    last_polled: Mapping[str, str],
    *,
    now_stamp: str,
    settings: Settings,
) -> tuple[str, ...]:
    """Return the pods whose logs the next decision needs.

    ``pods`` are those of each active stage, ``last_polled`` maps a pod to the time when its log was last read. Status shows the
    progress of one stage: while that is recent, the log of no other running stage is read. The end of a stage never waits for a log.
    Neither is a log read for progress that the child among ``objects`` already has.
    """
    ending = any(pod.done for reports in pods.values() for pod in reports)
    reported = now_stamp if ending else str((run.status.get("progress") or {}).get("lastReport", ""))
    found = []
    now = int(moment(now_stamp).timestamp())
    for stage_status in active_stages(run):
        reports = pods[stage_status.name]
        child_reports = replaces_log(objects.get(child_ref(stage_status)) or {}, now)
        last = now_stamp if child_reports else max(reported, *(last_polled.get(pod.name, "") for pod in reports), "")
        found.append(log_to_read(stage_status, reports, last or None, now_stamp, settings))
    return tuple(pod for pod in found if pod is not None)


def log_to_read(
    stage_status: StageStatus, pods: Iterable[PodReport], last_polled: str | None, now_stamp: str, settings: Settings
) -> str | None:
    """Return the pod of a stage whose log the next decision needs, ``None`` where it needs none.

    That is a pod that failed, or rank 0 of a running stage if its log was not read for :func:`poll_seconds`. The log of a stage that
    has just started is empty, and status reports first that the stage runs.
    """
    pods = tuple(pods)
    for pod in pods:
        if pod.failed and pod.termination is not None:
            return pod.name
    running = [pod for pod in pods if pod.phase == "Running" and not pod.done and pod.rank == 0]
    if not running or stage_status.state != "Running" or stage_status.reason == reasons.STARTING:
        return None
    due = last_polled is None or (seconds_between(last_polled, now_stamp) or 0.0) >= poll_seconds(
        stage_status, now_stamp, settings
    )
    return running[0].name if due else None


def poll_seconds(stage_status: StageStatus, now_stamp: str, settings: Settings) -> float:
    """Return the least time in seconds between two reads of a running stage's log.

    On a cluster each read goes through the API server to a kubelet, so the interval grows with the running time: a stage that runs for
    hours is read every few minutes. Local logs are files.
    """
    active = 0.0 if settings.mode == "local" else seconds_between(stage_status.started_at, now_stamp) or 0.0
    return max(settings.progress_seconds, active / POLLS)
