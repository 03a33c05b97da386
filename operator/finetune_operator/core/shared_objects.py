"""The objects that the pods of a run share: the ServiceAccount of stages, the ConfigMap with the inputs, the training bundle.

They are created at the start of a round and restored if somebody deletes them. An object that does not belong to the operator is never
used: the run waits with ``NameConflict`` until it is gone. A running pod no longer needs them, so they are read only while pods do not start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP, SERVICE_ACCOUNT

from . import naming, stages
from .blockers import GRACE_SECONDS, child_seconds, expected_pods, may_wait_for_mounts, seconds_since
from .decision import Create
from .manifests import children
from .observation import ChildState, Observed, Ref, child_state, controller_of, is_held
from .paths import Object
from .plan_builder import PlanBuilder
from .pod_report import PodReport
from .reads import running_children, shared_refs
from .run import Run, StageStatus
from .settings import Settings


def wanted(run: Run, objects: Mapping[Ref, Object], pods: Mapping[str, tuple[PodReport, ...]], now: datetime) -> tuple[Ref, ...]:
    """Return the shared objects to read: the ServiceAccount where pods are missing, the ConfigMaps where a pod does not start."""
    found: list[Ref] = []
    for stage_status, child in running_children(run, objects):
        found += to_read_for(run, stage_status, child, pods.get(stage_status.name, ()), now)
    return tuple(dict.fromkeys(found))


def to_read_for(run: Run, stage_status: StageStatus, child: Object, pods: tuple[PodReport, ...], now: datetime) -> Iterator[Ref]:
    """Yield the shared objects to read for one attempt."""
    refs = [ref for ref in shared_refs(run) if stage_status.child_kind == "TrainJob" or ref != _bundle(run)]
    if is_held(child):
        yield from () if run.spec.get("suspend") else refs  # a conflict with an object may be the reason
        return
    if child_state(child) is not ChildState.ACTIVE or (child.get("spec") or {}).get("suspend"):
        return
    missing = len(pods) < expected_pods(run, stage_status)
    mounting = any(may_wait_for_mounts(pod) and seconds_since(pod.created_at, now) >= GRACE_SECONDS for pod in pods)
    if missing and child_seconds(child, now) >= GRACE_SECONDS:
        yield from (ref for ref in refs if ref.kind == SERVICE_ACCOUNT)
    if mounting:
        yield from (ref for ref in refs if ref.kind == CONFIGMAP)


def _bundle(run: Run) -> Ref:
    return Ref(CONFIGMAP, naming.bundle_name(str((run.status.get("resolved") or {}).get("entryDigest", ""))))


def is_leftover(run: Run, item: Object) -> bool:
    """Return whether an object belongs to an earlier run of the same name; the garbage collector deletes it."""
    owner = controller_of(item)
    return owner.get("kind") == KIND and owner.get("name") == run.name and owner.get("uid") != run.uid


def conflict(run: Run, ref: Ref, observed: Observed) -> str | None:
    """Return why an existing object cannot be used, ``None`` if it belongs to the run and its content is unchanged."""
    item, content = observed.objects[ref], observed.contents.get(ref)
    metadata = item["metadata"]
    label = f"{naming.MANAGED_BY_LABEL}: {naming.MANAGED_BY}"
    if ref.kind == SERVICE_ACCOUNT:
        if (metadata.get("labels") or {}).get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY:
            return None
        return f"ServiceAccount {ref.name}: it was not created by this operator; delete it, or give it the label {label}"
    if ref == _bundle(run):
        expected = (run.status.get("resolved") or {}).get("entryDigest")
    elif controller_of(item).get("uid") == run.uid:
        expected = (metadata.get("annotations") or {}).get(naming.CONTENT_ANNOTATION)
    else:
        return f"ConfigMap {ref.name}: it exists and does not belong to this run; delete it, or use another run name"
    if None in (expected, content) or expected == content:
        return None
    return f"ConfigMap {ref.name}: its content is not what the operator wrote; delete it, and the operator creates it again"


def create(builder: PlanBuilder, ref: Ref) -> None:
    """Create a shared object, at most once in a pass."""
    if any(effect.ref == ref for effect in builder.effects):
        return
    run, settings = builder.view, builder.observed.settings
    if ref.kind == SERVICE_ACCOUNT:
        manifest = children.stage_account(run.namespace)
    elif ref == Ref(CONFIGMAP, naming.bundle_name(settings.bundle_digest)):
        manifest = children.bundle_configmap(run.namespace, settings.bundle_digest, settings.bundle_archive)
    else:
        inputs = {stage.name: stage.inputs(run) for stage in stages.GRAPH.programs.values() if not stage.skipped(run)}
        manifest = children.inputs_configmap(run, inputs)
    builder.effects.append(Create(manifest, ref))


def bundle_is_lost(run: Run, observed: Observed, missing: tuple[Ref, ...]) -> bool:
    """Return whether the missing training bundle is that of an earlier release, which this release cannot create."""
    return _bundle(run) in missing and not _is_current(run, observed.settings)


def _is_current(run: Run, settings: Settings) -> bool:
    return bool(_bundle(run).name == naming.bundle_name(settings.bundle_digest))
