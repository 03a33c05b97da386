"""Deletion: finalizers, grace periods of pods, and garbage collection of owned objects.

A cluster collects garbage asynchronously; here it is part of the same transaction.
Source: ``apiserver/pkg/registry/rest/delete.go``, ``kubernetes/pkg/controller/garbagecollector``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from finetune_operator.api.kinds import KINDS, POD, Kind, kind_of
from finetune_operator.core.times import moment, stamp
from finetune_operator.loop.cluster import Object, Propagation

from .objects import is_bound
from .transaction import Transaction

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

_MARKS: dict[Propagation, list[str]] = {"Background": [], "Foreground": [FOREGROUND], "Orphan": [ORPHAN]}
_DEFAULT_GRACE = 30
_SERVED = {(kind.api_version, kind.name) for kind in KINDS}


def delete(
    transaction: Transaction, kind: Kind, obj: Object, propagation: Propagation = "Background", grace: int | None = None
) -> None:
    """Start the deletion of an object, and complete it if nothing blocks it.

    Args:
        transaction: the present transaction.
        kind: the object's kind.
        obj: the object as it is stored.
        propagation: how owned objects are treated.
        grace: grace period of a running pod in seconds (default: the pod's own). 0 means that the pod has ended.
    """
    metadata = obj["metadata"]
    finalizers = [name for name in metadata.get("finalizers", ()) if name not in (FOREGROUND, ORPHAN)] + _MARKS[propagation]
    seconds = _grace(kind, obj, grace)
    marked = {**metadata, "finalizers": finalizers}
    if "deletionTimestamp" not in metadata:
        marked |= {"deletionTimestamp": _later(transaction.now, seconds), "deletionGracePeriodSeconds": seconds}
        if "generation" in metadata:
            marked["generation"] = metadata["generation"] + 1
    elif seconds < metadata.get("deletionGracePeriodSeconds", 0):
        marked |= {"deletionTimestamp": _later(transaction.now, seconds), "deletionGracePeriodSeconds": seconds}
    continue_deletion(transaction, kind, {**obj, "metadata": marked}, obj)


def continue_deletion(transaction: Transaction, kind: Kind, obj: Object, stored: Object) -> Object:
    """Continue a deletion as far as finalizers, dependents and grace period allow.

    Returns:
        The last state of the object.
    """
    metadata = obj["metadata"]
    uid, finalizers = metadata["uid"], list(metadata.get("finalizers", ()))
    if ORPHAN in finalizers:
        for dependent_kind, dependent in transaction.dependents(uid):
            _keep_owners(transaction, dependent_kind, dependent, [one for one in _owners(dependent) if one["uid"] != uid])
        finalizers.remove(ORPHAN)
    rest = {name: value for name, value in metadata.items() if name != "finalizers"}
    obj = {**obj, "metadata": {**rest, "finalizers": finalizers} if finalizers else rest}
    if finalizers or metadata.get("deletionGracePeriodSeconds", 0) > 0:
        if obj != stored:
            obj = transaction.write(kind, obj, stored)
        _finish_foreground(transaction, uid)
        return obj
    transaction.remove(kind, obj)
    for dependent_kind, dependent in transaction.dependents(uid):
        collect_garbage(transaction, dependent_kind, dependent)
    for owner in _owners(obj):
        _finish_foreground(transaction, owner["uid"])
    return obj


def collect_garbage(transaction: Transaction, kind: Kind, obj: Object) -> None:
    """Delete an object without existing owners; otherwise remove the references to owners that no longer exist."""
    owners = _owners(obj)
    present = [owner for owner in owners if _exists(transaction, owner)]
    if present and len(present) < len(owners):
        _keep_owners(transaction, kind, obj, present)
    elif owners and not present and "deletionTimestamp" not in obj["metadata"]:
        delete(transaction, kind, obj)
    for owner in present:
        _finish_foreground(transaction, owner["uid"])


def _finish_foreground(transaction: Transaction, uid: str) -> None:
    """Continue the foreground deletion of an owner: delete its dependents, or the owner if there are none."""
    owner = transaction.find_uid(uid)
    if owner is None or FOREGROUND not in owner["metadata"].get("finalizers", ()):
        return
    for kind, dependent in _blockers(transaction, uid):
        if "deletionTimestamp" not in dependent["metadata"]:
            has_more = any(transaction.dependents(dependent["metadata"]["uid"]))
            delete(transaction, kind, dependent, "Foreground" if has_more else "Background")
    owner = transaction.find_uid(uid)  # the deletion of the last dependent may have removed it
    if owner is not None and not any(_blockers(transaction, uid)):
        finalizers = [name for name in owner["metadata"]["finalizers"] if name != FOREGROUND]
        continue_deletion(
            transaction, kind_of(owner), {**owner, "metadata": {**owner["metadata"], "finalizers": finalizers}}, owner
        )


def _blockers(transaction: Transaction, uid: str) -> Iterator[tuple[Kind, Object]]:
    for kind, dependent in transaction.dependents(uid):
        if any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in _owners(dependent)):
            yield kind, dependent


def _keep_owners(transaction: Transaction, kind: Kind, obj: Object, owners: list[dict[str, Any]]) -> None:
    rest = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
    transaction.write(kind, {**obj, "metadata": {**rest, "ownerReferences": owners} if owners else rest}, obj)


def _exists(transaction: Transaction, owner: dict[str, Any]) -> bool:
    """Return whether an owner exists. Like the garbage collector, assume that owners of unserved kinds exist."""
    return (owner["apiVersion"], owner["kind"]) not in _SERVED or transaction.find_uid(owner["uid"]) is not None


def _owners(obj: Object) -> list[dict[str, Any]]:
    return list(obj["metadata"].get("ownerReferences") or ())


def _grace(kind: Kind, obj: Object, requested: int | None) -> int:
    """Return the grace period in seconds: 0 except for a pod that is bound to a node and has not ended."""
    if kind != POD:
        return 0
    if not is_bound(obj) or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    default: int = (obj.get("spec") or {}).get("terminationGracePeriodSeconds", _DEFAULT_GRACE)
    return default if requested is None else requested


def _later(now: str, seconds: int) -> str:
    return stamp(moment(now) + timedelta(seconds=seconds))
