"""What the API server changes in a created or patched object before validation. Pure functions."""

from __future__ import annotations

import uuid

from finetune_operator.api.kinds import CLAIM, CLUSTER_TRAINING_RUNTIME, CONFIGMAP, FINETUNERUN, JOB, POD, TRAINJOB, Kind
from finetune_operator.api.status import UNOBSERVED
from finetune_operator.loop.cluster import Object
from finetune_operator.validation.metadata import generated_name
from finetune_operator.validation.structure import identical
from finetune_operator.validation.validator import with_status_of, without_status

from . import rejections

WITH_STATUS = frozenset({FINETUNERUN, JOB, TRAINJOB, POD, CLAIM})
"""Kinds whose status is written through its subresource only."""

_WITH_GENERATION = frozenset({FINETUNERUN, JOB, TRAINJOB, POD, CLUSTER_TRAINING_RUNTIME})
_SET_BY_SERVER = (
    "uid", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields",
)  # fmt: skip
_KEPT_BY_SERVER = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion")


def created(kind: Kind, manifest: Object, now: str) -> Object:
    """Return a new object as it is stored: with namespace, UID, generation and creation time, without status.

    Raises:
        Invalid: the manifest has a resourceVersion.
    """
    metadata = {name: value for name, value in manifest.get("metadata", {}).items() if name not in _SET_BY_SERVER}
    if metadata.pop("resourceVersion", ""):
        raise rejections.bad_request("resourceVersion should not be set on objects to be created")
    if kind.namespaced:
        metadata.setdefault("namespace", "default")
    else:
        metadata.pop("namespace", None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated_name(metadata["generateName"])
    metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
    if kind in _WITH_GENERATION:
        metadata["generation"] = 1
    stored = without_status(manifest) if kind in WITH_STATUS else manifest
    return _defaulted(kind, {**stored, "metadata": metadata})


def updated(kind: Kind, merged: Object, old: Object, *, status: bool) -> Object:
    """Return the next state of ``old`` after a patch: only its status, or everything else.

    Raises:
        Conflict: the patch has another resourceVersion.
        Invalid: the patch has another name or namespace, or changes an immutable field.
    """
    before, metadata = old["metadata"], merged["metadata"]
    _require_same_object(metadata, before)
    if metadata.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
        raise rejections.stale(kind, before["name"])
    if status:
        return _defaulted(kind, with_status_of(old, merged))
    kept = {name: before[name] for name in _KEPT_BY_SERVER if name in before}
    for name in ("uid", "deletionTimestamp"):
        if name in metadata and (name == "uid" or name not in before):
            kept[name] = metadata[name]  # the validator rejects the change of an immutable field
    metadata = {**{name: value for name, value in metadata.items() if name not in ("selfLink", "managedFields")}, **kept}
    new = {**merged, "metadata": metadata}
    if kind in WITH_STATUS:
        new = with_status_of(new, old)
    if kind == CONFIGMAP:
        _require_mutable(new, old)
    if kind in _WITH_GENERATION and not identical(_content(new), _content(old)):
        metadata["generation"] = before["generation"] + 1
    return new


def _defaulted(kind: Kind, obj: Object) -> Object:
    """Return the object with the only default of the CRD, that of ``status``."""
    return {**obj, "status": dict(UNOBSERVED)} if kind == FINETUNERUN and "status" not in obj else obj


def is_bound(pod: Object) -> bool:
    """Return whether a pod has a node. The kubelet of local mode sets none; there the container's state decides."""
    status = pod.get("status") or {}
    return bool((pod.get("spec") or {}).get("nodeName") or status.get("containerStatuses") or status.get("phase") == "Running")


def _require_same_object(metadata: Object, before: Object) -> None:
    if not metadata.get("name"):
        raise rejections.bad_request(
            f"the name of the object ({before['name']} based on URL) was undeterminable: name must be provided"
        )
    if metadata["name"] != before["name"]:
        raise rejections.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({before['name']})"
        )
    if metadata.get("namespace") != before.get("namespace"):
        raise rejections.bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _require_mutable(new: Object, old: Object) -> None:
    if not old.get("immutable"):
        return
    for name in ("immutable", "data", "binaryData"):
        if not identical(new.get(name), old.get(name)):
            raise rejections.forbidden_change(
                CONFIGMAP, old["metadata"]["name"], name, "field is immutable when `immutable` is set"
            )


def _content(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
