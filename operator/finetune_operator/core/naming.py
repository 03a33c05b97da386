"""Names and labels of children. They follow from run, stage, round and attempt alone."""

from __future__ import annotations

import hashlib
import re

from finetune_contract.workspace import Attempt
from finetune_operator.api.finetunerun import API_VERSION, GROUP, KIND
from finetune_operator.api.stages import STAGES

from .run import Run

RUN_LABEL = f"{GROUP}/run"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"
INPUTS_ANNOTATION = f"{GROUP}/inputs-digest"
CONTENT_ANNOTATION = f"{GROUP}/content-digest"
"""SHA-256 of the content of a record of an engine check. The digests of all other ConfigMaps are in the status of runs."""
RUN_UID_ANNOTATION = f"{GROUP}/run-uid"
"""UID of the run for which the operator created a claim, which has no owner."""
HELD_ANNOTATION = f"{GROUP}/suspended-by"
"""Present on a Job or TrainJob that the operator suspended. It does not resume any other."""

TRAINJOB_NAME_LIMIT = 33
"""Characters of a TrainJob's name: JobSet appends to it, and a pod's host name has at most 63 characters."""
NAME_LIMIT = 63

STAGE_ACCOUNT = "finetune-stage"
"""The ServiceAccount of stages: one in each namespace, without permissions, token and owner."""

JOB_CONTAINER, TRAINJOB_CONTAINER = "stage", "node"
"""Names of the containers that run stages: the runtimes of Kubeflow Trainer name theirs."""

_INPUTS = re.compile(r"-inputs-[0-9]+$")
_INFIXES = {stage.name: stage.child_infix for stage in STAGES if stage.child_infix}
_IN_TRAINJOBS = frozenset(stage.name for stage in STAGES if stage.child_kind == "TrainJob")


def child_name(run: str, stage: str, attempt: Attempt, limit: int = NAME_LIMIT) -> str:
    """Return ``<run>-<stage>-<round>-<attempt>``, cut and with a hash of the run's name if it is longer than ``limit``."""
    return _fit(run, f"-{_INFIXES.get(stage, stage)}-{attempt.round}-{attempt.number}", limit)


def inputs_name(run: str, round_: int) -> str:
    """Return the name of the ConfigMap with the input documents of all stages of a round."""
    return _fit(run, f"-inputs-{round_}", NAME_LIMIT)


def claim_name(run: str) -> str:
    """Return the name of the claim that the operator creates for a run."""
    return _fit(run, "-workspace", NAME_LIMIT)


def workspace_claim(run: Run) -> str:
    """Return the name of a run's claim: ``storage.claimName``, else its own."""
    return run.resolved.storage.claim_name or claim_name(run.name)


def bundle_name(digest: str) -> str:
    """Return the name of the ConfigMap with the training bundle. Runs of a namespace share it, and it has no owner."""
    return f"finetune-training-bundle-{digest[:16]}"


def is_reserved(name: str) -> bool:
    """Return whether a ConfigMap with this name may be one that the operator creates or reads by its name."""
    return name.startswith("finetune-") or _INPUTS.search(name) is not None


def engine_record_name(key: str) -> str:
    """Return the name of the ConfigMap that records an engine check. Runs of a namespace share it, and it has no owner."""
    return f"finetune-engine-check-{key[:16]}"


def container_name(stage: str) -> str:
    """Return the name of the container that runs ``stage`` in its pods."""
    return TRAINJOB_CONTAINER if stage in _IN_TRAINJOBS else JOB_CONTAINER


def labels(run: Run, stage: str, attempt: Attempt | None = None) -> dict[str, str]:
    """Return the labels of a child and of its pods."""
    found = {RUN_LABEL: run.name, STAGE_LABEL: stage, MANAGED_BY_LABEL: MANAGED_BY}
    return {**found, ATTEMPT_LABEL: str(attempt)} if attempt else found


def owner_reference(run: Run) -> dict[str, object]:
    """Return the owner reference of a child to its run, with which it is garbage-collected."""
    return {
        "apiVersion": API_VERSION, "kind": KIND, "name": run.name, "uid": run.uid, "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def _fit(run: str, suffix: str, limit: int) -> str:
    if len(run) + len(suffix) <= limit:
        return run + suffix
    mark = hashlib.sha256(run.encode()).hexdigest()[:5]
    return f"{run[: limit - len(suffix) - len(mark) - 1].rstrip('-')}-{mark}{suffix}"
