"""The manifests of children: Job, claim and ConfigMaps; :mod:`.trainjob` has the TrainJob."""

from __future__ import annotations

import hashlib
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
    metadata = {
        "name": naming.claim_name(run.name), "namespace": run.namespace, "labels": naming.labels(run, WORKSPACE.name),
        "annotations": {naming.RUN_UID_ANNOTATION: run.uid},
    }  # fmt: skip
    return {**_typed(CLAIM), "metadata": metadata, "spec": spec}


def stage_account(namespace: str) -> Json:
    """Return the ServiceAccount of stages: without permissions and without a token. Runs share it, so it has no owner."""
    metadata = {
        "name": naming.STAGE_ACCOUNT, "namespace": namespace,
        "labels": {naming.STAGE_LABEL: "account", naming.MANAGED_BY_LABEL: naming.MANAGED_BY},
    }  # fmt: skip
    return {**_typed(SERVICE_ACCOUNT), "metadata": metadata, "automountServiceAccountToken": False}


def documents(run: Run, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the documents of a round as JSON text, by stage. ``inputs`` maps each stage to its inputs."""
    about = RunInfo(run.name, run.namespace, run.uid, run.experiment)
    explicit = {TRAINING.name: explicit_fields(run.status.get("resolved") or {}, "training", "model")}
    found = {
        stage: StageDocument(CONTRACT_VERSION, stage, about, encode(value), explicit.get(stage))
        for stage, value in inputs.items()
    }
    return {stage: json.dumps(encode(document), indent=1, sort_keys=True) for stage, document in found.items()}


def document_digests(written: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each of :func:`documents`, by stage."""
    return {stage: _sha256(text) for stage, text in written.items()}


def inputs_configmap(run: Run, written: Mapping[str, str]) -> Json:
    """Return the immutable ConfigMap with the :func:`documents` of a round."""
    data = {_document_file(stage): text for stage, text in written.items()}
    metadata = {
        "name": naming.inputs_name(run.name, run.round), "namespace": run.namespace, "labels": naming.labels(run, "inputs"),
        "ownerReferences": [naming.owner_reference(run)],
    }  # fmt: skip
    return {**_typed(CONFIGMAP), "metadata": metadata, "immutable": True, "data": data}


def inputs_content(digests: Mapping[str, str]) -> str:
    """Return the :func:`content_digest` of the ConfigMap with the documents that have these digests, by stage."""
    return _content(True, {_document_file(stage): found for stage, found in digests.items()}, {})


def content_digest(configmap: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a ConfigMap's content and of its field ``immutable``."""
    data, binary = (
        {key: _sha256(value) for key, value in (configmap.get(field) or {}).items()} for field in ("data", "binaryData")
    )
    return _content(bool(configmap.get("immutable")), data, binary)


def _content(immutable: bool, data: Mapping[str, str], binary: Mapping[str, str]) -> str:
    found: str = digest({"immutable": immutable, "data": data, "binaryData": binary})
    return found


def _document_file(stage: str) -> str:
    return f"{stage}.json"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bundle_configmap(namespace: str, digest: str, archive: str) -> Json:
    """Return the ConfigMap with the training bundle. Runs of a namespace share it, so it has no owner. ``archive`` is base64."""
    metadata = {
        "name": naming.bundle_name(digest), "namespace": namespace,
        "labels": {naming.STAGE_LABEL: TRAINING.name, naming.MANAGED_BY_LABEL: naming.MANAGED_BY},
    }  # fmt: skip
    return {**_typed(CONFIGMAP), "metadata": metadata, "immutable": True, "binaryData": {pod.BUNDLE_FILE: archive}}


def engine_record(namespace: str, key: str, image: str, image_digest: str, found: EngineCheckOutputs) -> Json:
    """Return the immutable ConfigMap that records an engine check. Runs of a namespace share it, so it has no owner.

    Args:
        namespace: that of the run.
        key: digest of everything that the result depends on.
        image: name of the training image.
        image_digest: ``sha256:...``, the digest of the image.
        found: the result of the check.
    """
    versions = ", ".join(f"{package} {version}" for package, version in sorted(found.versions.items()))
    data = {
        "image": image, "imageDigest": image_digest, "engine": found.engine, "reason": found.reason, "versions": versions,
    }  # fmt: skip
    content = {"immutable": True, "data": {name: value[:_RECORD_LIMIT] for name, value in data.items()}}
    metadata = {
        "name": naming.engine_record_name(key), "namespace": namespace,
        "labels": {naming.STAGE_LABEL: ENGINE_CHECK.name, naming.MANAGED_BY_LABEL: naming.MANAGED_BY},
        "annotations": {naming.INPUTS_ANNOTATION: key, naming.CONTENT_ANNOTATION: content_digest(content)},
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
