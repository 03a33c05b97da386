"""Names and labels of children: the same for the same run, round and attempt, whoever computes them."""

from __future__ import annotations

import hashlib

from finetune_contract.workspace import Attempt
from finetune_operator.api.finetunerun import API_VERSION, GROUP, KIND

from .run import Run

RUN_LABEL = f"{GROUP}/run"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"
INPUTS_ANNOTATION = f"{GROUP}/inputs-digest"
CONTENT_ANNOTATION = f"{GROUP}/content-digest"
"""SHA-256 of what a ConfigMap of ours holds, written when it is created."""
HELD_ANNOTATION = f"{GROUP}/suspended-by"
"""Present on a Job or TrainJob that the operator suspended: one that somebody else suspended is not resumed."""

TRAINJOB_LIMIT = 33
"""JobSet appends to the name of a TrainJob, and a pod's host name has 63 characters."""
OBJECT_LIMIT = 63

STAGE_ACCOUNT = "finetune-stage"
"""The ServiceAccount of stages: one a namespace, without rights and without a token, owned by none."""

JOB_CONTAINER, TRAINJOB_CONTAINER = "stage", "node"
"""Names of the containers that run stages: the runtimes of Kubeflow Trainer name theirs."""

_SHORT = {"training": "train", "evaluation": "eval", "registration": "register"}


def child_name(run: str, stage: str, attempt: Attempt, limit: int = OBJECT_LIMIT) -> str:
    """``<run>-<stage>-<round>-<attempt>``, cut with a hash of the run's name where it would be longer than ``limit``."""
    return _fit(run, f"-{_SHORT.get(stage, stage)}-{attempt.round}-{attempt.number}", limit)


def inputs_name(run: str, round_: int) -> str:
    """The ConfigMap with the documents of all stages of a round."""
    return _fit(run, f"-inputs-{round_}", OBJECT_LIMIT)


def claim_name(run: str) -> str:
    """The workspace claim that a run makes for itself."""
    return _fit(run, "-workspace", OBJECT_LIMIT)


def workspace_claim(run: Run) -> str:
    """The claim that a run works on: the one that it names, else its own."""
    return run.resolved.storage.claim_name or claim_name(run.name)


def entry_name(digest: str) -> str:
    """The ConfigMap with the training program: one a namespace and program, shared by runs, owned by none."""
    return f"finetune-entry-{digest[:16]}"


def container_name(stage: str) -> str:
    """Return the name of the container that runs ``stage`` in its pods."""
    return TRAINJOB_CONTAINER if stage == "training" else JOB_CONTAINER


def labels(run: Run, stage: str, attempt: Attempt | None = None) -> dict[str, str]:
    """The labels of a child and of its pods."""
    found = {RUN_LABEL: run.name, STAGE_LABEL: stage, MANAGED_BY_LABEL: MANAGED_BY}
    return {**found, ATTEMPT_LABEL: str(attempt)} if attempt else found


def owner_reference(run: Run) -> dict[str, object]:
    """The reference by which a child belongs to its run and goes with it."""
    return {
        "apiVersion": API_VERSION, "kind": KIND, "name": run.name, "uid": run.uid, "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def _fit(run: str, suffix: str, limit: int) -> str:
    if len(run) + len(suffix) <= limit:
        return run + suffix
    mark = hashlib.sha256(run.encode()).hexdigest()[:5]
    return f"{run[: limit - len(suffix) - len(mark) - 1].rstrip('-')}-{mark}{suffix}"
