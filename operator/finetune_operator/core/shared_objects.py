"""The objects that the pods of a run share: the ServiceAccount of stages, the ConfigMap with the inputs, the training bundle.

They are created at the start of a round and restored if somebody deletes them. An object that does not belong to the operator is never
used: the run waits with ``NameConflict`` until it is gone. A running pod no longer needs them, so they are read only while pods do not start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from finetune_operator.api.kinds import CONFIGMAP, SERVICE_ACCOUNT

from . import naming, stages
from .blockers import GRACE_SECONDS, child_seconds, expected_pods, may_wait_for_mounts, seconds_since
from .decision import Create
from .manifests import children
from .observation import ChildState, Ref, child_state, is_held
from .paths import Json, Object
from .plan_builder import PlanBuilder
from .pod_report import PodReport
from .reads import running_children, shared_refs
from .run import Run, StageStatus


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
        manifest = children.inputs_configmap(run, documents(run))
    builder.effects.append(Create(manifest, ref))


def documents(run: Run) -> dict[str, str]:
    """Return the input documents of the stages of a round, as JSON text by stage."""
    inputs = {stage.name: stage.inputs(run) for stage in stages.GRAPH.programs.values() if not stage.skipped(run)}
    return children.documents(run, inputs)


def renew(builder: PlanBuilder, missing: Iterable[Ref]) -> bool:
    """Switch the run to the training bundle and to the documents of this release where those of an earlier release no longer exist.

    Return False if every missing object can be created as it was.
    """
    run, changes = builder.view, Json()
    for ref in missing:
        if ref == _bundle(run):
            changes["entryDigest"] = builder.observed.settings.bundle_digest
        elif ref == Ref(CONFIGMAP, naming.inputs_name(run.name, run.round)):
            changes["documents"] = children.document_digests(documents(run))
    resolved = {**run.status["resolved"], **changes}
    if resolved == run.status["resolved"]:
        return False
    builder.fields["resolved"] = resolved
    return True
