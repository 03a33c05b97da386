"""Ownership of the objects that the operator reads by name. Names and labels prove nothing: another user can create an object with them first.

+--------------------------------+----------------------------------------------------------------------------------------+
| Object                         | Ours if                                                                                |
+================================+========================================================================================+
| Job, TrainJob of an attempt    | the run's UID is the controller, and the UID is the one in status once it is there     |
| pod of an attempt              | its controller is that child, or the Job of the child's JobSet (``loop/lineage.py``)   |
| ConfigMap with the inputs      | the run's UID is the controller; immutable; the documents have the digests in status   |
| ConfigMap of the training      | no owner; immutable; its files have the digest in status. The pod's command has that   |
| bundle                         | digest, too                                                                            |
| ConfigMap of an engine check   | no owner; immutable; key and content have the digests in its annotations               |
| claim of the workspace         | the run's UID is in its annotation, unless the run names it in ``storage.claimName``   |
| ServiceAccount ``finetune-     | no owner; the operator's label; it mounts no token                                     |
| stage``                        |                                                                                        |
+--------------------------------+----------------------------------------------------------------------------------------+

Other objects that are read by name belong to somebody else on purpose, and the run or the platform names them: ``storage.claimName``,
``serviceAccountName``, Secrets, ConfigMaps in ``taskFiles`` and ``caRef``, ClusterTrainingRuntimes, ``finetune-defaults``.
"""

from __future__ import annotations

from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CLAIM, SERVICE_ACCOUNT

from . import naming
from .manifests.children import inputs_content
from .observation import Observed, Ref, controller_of
from .paths import Object
from .run import Run

_REPLACED = "its content is not what the operator wrote, or it can be changed; delete it, and the operator creates it again"


def is_leftover(run: Run, item: Object) -> bool:
    """Return whether an object belongs to an earlier run of the same name; the garbage collector deletes it."""
    owner = controller_of(item)
    return owner.get("kind") == KIND and owner.get("name") == run.name and owner.get("uid") != run.uid


def conflict(run: Run, ref: Ref, observed: Observed) -> str | None:
    """Return why an object that exists cannot be used as one of :func:`.reads.workspace_refs`; ``None`` if it is ours and unchanged."""
    item = observed.objects[ref]
    if ref.kind == CLAIM:
        return _claim_conflict(run, ref, item)
    if ref.kind == SERVICE_ACCOUNT:
        return _account_conflict(ref, item)
    resolved = run.status.get("resolved") or {}
    content = observed.contents.get(ref)
    if ref.name == naming.bundle_name(str(resolved.get("entryDigest", ""))):
        if item["metadata"].get("ownerReferences"):
            return f"ConfigMap {ref.name}: it has an owner, and the operator creates it without one; delete it"
        return None if content == resolved["entryDigest"] else f"ConfigMap {ref.name}: {_REPLACED}"
    if controller_of(item).get("uid") != run.uid:
        return f"ConfigMap {ref.name}: it exists and does not belong to this run; delete it, or use another run name"
    return None if content == inputs_content(resolved.get("documents") or {}) else f"ConfigMap {ref.name}: {_REPLACED}"


def _claim_conflict(run: Run, ref: Ref, item: Object) -> str | None:
    if run.resolved.storage.claim_name or (item["metadata"].get("annotations") or {}).get(naming.RUN_UID_ANNOTATION) == run.uid:
        return None
    return (
        f"claim {ref.name}: it exists and was not created for this run; create the run again with storage.claimName: {ref.name} to use it, or"
        " delete the claim and its data"
    )


def _account_conflict(ref: Ref, item: Object) -> str | None:
    metadata = item["metadata"]
    labeled = (metadata.get("labels") or {}).get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY
    if labeled and not metadata.get("ownerReferences") and item.get("automountServiceAccountToken") is False:
        return None
    return (
        f"ServiceAccount {ref.name}: it is not the account of this operator; delete it, or give it the label"
        f" {naming.MANAGED_BY_LABEL}: {naming.MANAGED_BY}, no owner, and automountServiceAccountToken: false"
    )


def is_our_record(item: Object, content: str | None, key: str) -> bool:
    """Return whether the operator recorded an engine check with this key in a ConfigMap, whose content is unchanged.

    A forged record skips the check, and nothing else: the training program chooses its engine itself.
    """
    metadata = item["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return (
        labels.get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY
        and not metadata.get("ownerReferences")
        and annotations.get(naming.INPUTS_ANNOTATION) == key
        and bool(content)
        and annotations.get(naming.CONTENT_ANNOTATION) == content
    )
