"""The Job and TrainJob controllers of local mode, as pure functions from a workload and its pods to the next step.

They implement what ``batch/v1`` and Kubeflow Trainer 2.2 do for the manifests of this operator: one attempt, no restarts in place,
ranks with the ``PET_*`` environment, suspension, and the same status.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from finetune_contract.progress import METRICS_PORT_VARIABLE
from finetune_operator.api.kinds import JOB, POD, TRAINJOB, Kind
from finetune_operator.core.observation import ChildState, child_state
from finetune_operator.loop.cluster import Object

RANK = "batch.kubernetes.io/job-completion-index"
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
REPLICATED_JOB_LABEL = "jobset.sigs.k8s.io/replicatedjob-name"
NODE = "node"
"""Name of the training replicated job and of its container, in every runtime."""


@dataclass(frozen=True)
class Step:
    """The next step of a controller: pods to create, names of pods to delete, the status to write (``None``: unchanged)."""

    create: tuple[Object, ...] = ()
    delete: tuple[str, ...] = ()
    status: Object | None = None


@dataclass(frozen=True)
class _Count:
    """The number of pods of a workload by phase."""

    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """The number of all pods."""
        return self.active + self.succeeded + self.failed


def job_step(job: Object, pods: list[Object], now: str) -> Step:
    """Return the next step of the Job controller: it creates one pod, and the Job ends with it."""
    return _step(job, pods, now, [_job_pod(job)], _job_status)


def trainjob_step(trainjob: Object, pods: list[Object], now: str, port: int) -> Step:
    """Return the next step of Trainer: a pod for each node, with rendezvous at ``port`` of this machine."""
    nodes = int(trainjob["spec"]["trainer"].get("numNodes", 1))
    return _step(trainjob, pods, now, [_rank_pod(trainjob, rank, nodes, port) for rank in range(nodes)], _trainjob_status)


def _step(
    workload: Object, pods: list[Object], now: str, desired: list[Object], status: Callable[[Object, _Count, str, str], Object]
) -> Step:
    state = child_state(workload)
    if state in (ChildState.SUCCEEDED, ChildState.FAILED):
        # When one rank fails the job has failed, and the other ranks must release their resources.
        return Step(delete=tuple(_running(pods)) if state is ChildState.FAILED else ())
    existing = {pod["metadata"]["name"] for pod in pods}
    missing = tuple(pod for pod in desired if pod["metadata"]["name"] not in existing)
    count = _count([pod for pod in pods if not pod["metadata"].get("deletionTimestamp")])
    if workload["spec"].get("suspend"):
        return Step(delete=tuple(_running(pods)), status=status(workload, count, "Suspended", now))
    if count.failed or (_was_active(workload) and count.total < len(desired)):
        return Step(status=status(workload, count, "Failed", now))
    if count.succeeded == len(desired):
        return Step(status=status(workload, count, "Complete", now))
    return Step(create=missing, status=status(workload, count, "", now) if not missing else None)


def _was_active(workload: Object) -> bool:
    """Return whether all its pods existed before: a pod that is missing now was deleted."""
    status = workload.get("status") or {}
    return bool(status.get("active") or any(job.get("active") for job in status.get("jobsStatus") or ()))


def _count(pods: list[Object]) -> _Count:
    phases = [(pod.get("status") or {}).get("phase", "Pending") for pod in pods]
    return _Count(
        active=sum(phase in ("Pending", "Running") for phase in phases),
        ready=phases.count("Running"),
        succeeded=phases.count("Succeeded"),
        failed=phases.count("Failed"),
    )


def _running(pods: list[Object]) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in pods
        if (pod.get("status") or {}).get("phase", "Pending") in ("Pending", "Running")
        and not pod["metadata"].get("deletionTimestamp")
    ]


def _conditions(workload: Object, now: str, desired: Mapping[str, tuple[bool, str, str]]) -> list[Object]:
    """Return the workload's conditions with ``desired``; transition times change only with ``status``."""
    found = {condition["type"]: condition for condition in (workload.get("status") or {}).get("conditions") or ()}
    for type_, (holds, reason, message) in desired.items():
        status = str(holds)
        old = found.get(type_)
        since = old["lastTransitionTime"] if old and old["status"] == status else now
        found[type_] = {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
    return list(found.values())


def _terminal_conditions(
    state: str, resumed: bool, failed: tuple[str, str], complete: tuple[str, str]
) -> dict[str, tuple[bool, str, str]]:
    if state == "Failed":
        return {"Failed": (True, *failed)}
    if state == "Complete":
        return {"Complete": (True, *complete)}
    if state == "Suspended":
        return {"Suspended": (True, "Suspended", "")}
    return {"Suspended": (False, "Resumed", "")} if resumed else {}


def _was_suspended(workload: Object) -> bool:
    return any(condition["type"] == "Suspended" for condition in (workload.get("status") or {}).get("conditions") or ())


def _job_status(job: Object, count: _Count, state: str, now: str) -> Object:
    conditions = _terminal_conditions(
        state, _was_suspended(job), ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        ("CompletionsReached", "Reached expected number of succeeded pods"),
    )  # fmt: skip
    status: Object = {"active": count.active, "ready": count.ready, "succeeded": count.succeeded, "failed": count.failed}
    status["conditions"] = _conditions(job, now, conditions)
    status["startTime"] = (job.get("status") or {}).get("startTime") or now
    if state == "Complete":
        status["completionTime"] = now
    return status


def _trainjob_status(trainjob: Object, count: _Count, state: str, now: str) -> Object:
    """Return the status; its counts are of Jobs, and there is one, so they are 0 or 1."""
    conditions = _terminal_conditions(
        state, _was_suspended(trainjob), ("FailedJobs", "jobset failed due to one or more job failures"),
        ("AllJobsCompleted", "jobset completed successfully"),
    )  # fmt: skip
    jobs = {
        "name": NODE, "active": int(bool(count.active)), "ready": int(count.ready == count.total > 0),
        "succeeded": int(state == "Complete"), "failed": int(state == "Failed"), "suspended": int(state == "Suspended"),
    }  # fmt: skip
    return {"conditions": _conditions(trainjob, now, conditions), "jobsStatus": [jobs]}


def _job_pod(job: Object) -> Object:
    template = job["spec"]["template"]
    return _pod(
        JOB, job, _pod_name(job["metadata"]["name"], 0), template, {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    )


def _rank_pod(trainjob: Object, rank: int, nodes: int, port: int) -> Object:
    """Return the pod of a rank: the container of the runtime with the operator's patch and the trainer's fields."""
    metadata, trainer = trainjob["metadata"], trainjob["spec"]["trainer"]
    patch = _pod_patch(trainjob)
    spec = dict(patch.get("spec") or {})
    patched: Object = next((item for item in spec.get("containers") or () if item["name"] == NODE), {})
    torch = {
        "PET_NNODES": nodes, "PET_NPROC_PER_NODE": trainer.get("numProcPerNode", 1), "PET_NODE_RANK": rank,
        "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port,
        METRICS_PORT_VARIABLE: "",  # nothing polls it here, and the pods of this machine share its ports
    }  # fmt: skip
    container = {
        **patched,
        "name": NODE,
        "image": trainer.get("image", ""),
        "command": trainer.get("command") or [],
        "args": trainer.get("args") or [],
        "env": [*(trainer.get("env") or ()), *({"name": name, "value": str(value)} for name, value in torch.items())],
        "resources": trainer.get("resourcesPerNode") or {},
    }
    template = {"metadata": patch.get("metadata") or {}, "spec": {**spec, "restartPolicy": "Never", "containers": [container]}}
    labels = {JOBSET_LABEL: metadata["name"], REPLICATED_JOB_LABEL: NODE, RANK: str(rank)}
    return _pod(TRAINJOB, trainjob, _pod_name(f"{metadata['name']}-{NODE}-0-{rank}", rank), template, labels)


def _pod_patch(trainjob: Object) -> Object:
    """Return the pod template of the ``node`` job in the operator's runtime patch."""
    for patch in trainjob["spec"].get("runtimePatches") or ():
        jobs = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        for entry in jobs:
            if entry["name"] == NODE:
                template: Object = entry["template"]["spec"]["template"]
                return template
    return {}


def _pod(kind: Kind, owner: Object, name: str, template: Object, labels: Mapping[str, str]) -> Object:
    metadata, inner = owner["metadata"], template.get("metadata") or {}
    reference = {
        "apiVersion": kind.api_version, "kind": kind.name, "name": metadata["name"], "uid": metadata["uid"], "controller": True,
        "blockOwnerDeletion": True,
    }  # fmt: skip
    found: Object = {
        "name": name, "namespace": metadata["namespace"], "labels": {**(inner.get("labels") or {}), **labels},
        "ownerReferences": [reference],
    }  # fmt: skip
    if inner.get("annotations"):
        found["annotations"] = dict(inner["annotations"])
    return {"apiVersion": POD.api_version, "kind": POD.name, "metadata": found, "spec": template["spec"]}


def _pod_name(base: str, rank: int) -> str:
    """Return a pod name in Kubernetes' format that is deterministic, so that creating the pod is idempotent."""
    return f"{base}-{hashlib.sha256(f'{base}/{rank}'.encode()).hexdigest()[:5]}"
