"""The manifests of children: Job, claim and ConfigMaps; :mod:`.trainjob` has the TrainJob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import digest, encode
from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.result import EngineCheckOutputs
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, JOB, SERVICE_ACCOUNT, Kind
from finetune_operator.api.stages import ENGINE_CHECK, TRAINING, WORKSPACE
from finetune_operator.core import naming
from finetune_operator.core.origins import explicit_fields
from finetune_operator.core.run import Run, StageStatus

from . import pod, volumes
from .pod import Json, PodNeeds

TERMINATION_GRACE_SECONDS = 60
"""Seconds between SIGTERM and SIGKILL."""
_RECORD_LIMIT = 512
"""Characters of each value in the record of an engine check."""


def job(run: Run, stage_status: StageStatus, program: str, needs: PodNeeds, image: str) -> Json:
    """Return a Job with one pod and without retries: the operator retries."""
    container = {
        "name": naming.JOB_CONTAINER,
        "image": image,
        "command": ["python", "-m", f"finetune_stages.{program}"],
        "env": pod.environment(run, stage_status, needs, image),
        "volumeMounts": volumes.mounts(run, stage_status, needs),
        "resources": needs.requirements,
        "securityContext": pod.container_security(),
        "terminationMessagePath": pod.TERMINATION_LOG,
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **pod.volume_group(run)},
        "containers": [container],
        "volumes": volumes.volumes(run, stage_status, needs),
        **pod.placed(run, needs),
    }
    if needs.placement.priority_class_name:
        spec["priorityClassName"] = needs.placement.priority_class_name
    template = {"metadata": pod.pod_metadata(run, stage_status, needs), "spec": spec}
    return {**child(JOB, run, stage_status), "spec": {"backoffLimit": 0, "template": template}}


def claim(run: Run) -> Json:
    """Return the claim of the workspace. It has no owner, so that the model stays when the run is deleted."""
    storage = run.resolved.storage
    spec: Json = {"accessModes": list(storage.access_modes), "resources": {"requests": {"storage": str(storage.size)}}}
    if storage.storage_class_name:
        spec["storageClassName"] = storage.storage_class_name
    metadata = {"name": naming.claim_name(run.name), "namespace": run.namespace, "labels": naming.labels(run, WORKSPACE.name)}
    return {**_typed(CLAIM), "metadata": metadata, "spec": spec}


def stage_account(namespace: str) -> Json:
    """Return the ServiceAccount of stages: without permissions and without a token. Runs share it, so it has no owner."""
    metadata = {
        "name": naming.STAGE_ACCOUNT, "namespace": namespace,
        "labels": {naming.STAGE_LABEL: "account", naming.MANAGED_BY_LABEL: naming.MANAGED_BY},
    }  # fmt: skip
    return {**_typed(SERVICE_ACCOUNT), "metadata": metadata, "automountServiceAccountToken": False}


def inputs_configmap(run: Run, inputs: Mapping[str, Any]) -> Json:
    """Return the immutable ConfigMap with the input documents of a round. ``inputs`` maps each stage to its document."""
    about = RunInfo(run.name, run.namespace, run.uid, run.experiment)
    explicit = {TRAINING.name: explicit_fields(run.status.get("resolved") or {}, "training", "model")}
    documents = {
        stage: StageDocument(CONTRACT_VERSION, stage, about, encode(value), explicit.get(stage))
        for stage, value in inputs.items()
    }
    data = {f"{stage}.json": json.dumps(encode(document), indent=1, sort_keys=True) for stage, document in documents.items()}
    content = {"immutable": True, "data": data}
    metadata = {
        "name": naming.inputs_name(run.name, run.round), "namespace": run.namespace, "labels": naming.labels(run, "inputs"),
        "annotations": {naming.CONTENT_ANNOTATION: content_digest(content)}, "ownerReferences": [naming.owner_reference(run)],
    }  # fmt: skip
    return {**_typed(CONFIGMAP), "metadata": metadata, **content}


def content_digest(configmap: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a ConfigMap's content and of its field ``immutable``."""
    found: str = digest(
        {"immutable": configmap.get("immutable"), **{key: configmap.get(key) or {} for key in ("data", "binaryData")}}
    )
    return found


def bundle_configmap(namespace: str, digest: str, archive: str) -> Json:
    """Return the ConfigMap with the training bundle. Runs of a namespace share it, so it has no owner. ``archive`` is base64."""
    metadata = {
        "name": naming.bundle_name(digest), "namespace": namespace,
        "labels": {naming.STAGE_LABEL: TRAINING.name, naming.MANAGED_BY_LABEL: naming.MANAGED_BY},
    }  # fmt: skip
    return {**_typed(CONFIGMAP), "metadata": metadata, "immutable": True, "binaryData": {pod.BUNDLE_FILE: archive}}


def engine_record(namespace: str, name: str, image: str, image_digest: str, found: EngineCheckOutputs) -> Json:
    """Return the immutable ConfigMap that records an engine check. Runs of a namespace share it, so it has no owner.

    Args:
        namespace: that of the run.
        name: of the ConfigMap.
        image: name of the training image.
        image_digest: ``sha256:...``, the digest of the image.
        found: the result of the check.
    """
    versions = ", ".join(f"{package} {version}" for package, version in sorted(found.versions.items()))
    data = {"image": image, "imageDigest": image_digest, "engine": found.engine, "reason": found.reason, "versions": versions}
    content = {"immutable": True, "data": {key: value[:_RECORD_LIMIT] for key, value in data.items()}}
    metadata = {
        "name": name, "namespace": namespace,
        "labels": {naming.STAGE_LABEL: ENGINE_CHECK.name, naming.MANAGED_BY_LABEL: naming.MANAGED_BY},
        "annotations": {naming.CONTENT_ANNOTATION: content_digest(content)},
    }  # fmt: skip
    return {**_typed(CONFIGMAP), "metadata": metadata, **content}


def child(kind: Kind, run: Run, stage_status: StageStatus) -> Json:
    """Return a Job or TrainJob without its spec: type and metadata."""
    metadata = {
        "name": stage_status.child_name,
        "namespace": run.namespace,
        "labels": naming.labels(run, stage_status.name, stage_status.this_attempt),
        "annotations": {naming.INPUTS_ANNOTATION: stage_status.inputs_digest or ""},
        "ownerReferences": [naming.owner_reference(run)],
    }
    return {**_typed(kind), "metadata": metadata}


def _typed(kind: Kind) -> Json:
    return {"apiVersion": kind.api_version, "kind": kind.name}
