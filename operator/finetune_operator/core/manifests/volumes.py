"""Volumes and mounts of the pods of stages, with the least access to the workspace that a stage needs.

What an earlier stage published is mounted read-only into the pods of later ones, which run the operator's images. Pods of training run images
of users. With isolation by mounts, they can write to one folder of the workspace. The programs make the folders, not the kubelet, whose user
may not write to NFS. A TrainJob can mount a volume once only, so these mounts are volumes of their own with the same claim.
"""

from __future__ import annotations

from finetune_contract.workspace import CACHE_RESULTS
from finetune_operator.api.stages import BASELINE, DATASET, ENGINE_CHECK, EVALUATION, REGISTRATION, TOKENIZATION, TRAINING
from finetune_operator.core import naming
from finetune_operator.core.isolation import runs_custom_code
from finetune_operator.core.run import Run, StageStatus

from .pod import DOCUMENTS_PATH, SCRATCH_LIMIT, SCRATCH_PATH, WORKSPACE_PATH, Json, PodNeeds

_WORKSPACE = "workspace"
_LATE = (BASELINE.name, EVALUATION.name, REGISTRATION.name)
"""Stages that start after everything that :func:`_workspace_mounts` names exists."""


def volumes(run: Run, stage_status: StageStatus, needs: PodNeeds) -> list[Json]:
    """Return the volumes of a stage's pod. It gets its own input document only."""
    document = f"{stage_status.name}.json"
    empty: Json = {"name": _WORKSPACE, "emptyDir": {"sizeLimit": SCRATCH_LIMIT}}
    found: list[Json] = [
        empty if stage_status.name == ENGINE_CHECK.name else _claim(run, _WORKSPACE),
        {
            "name": "documents",
            "configMap": {"name": naming.inputs_name(run.name, run.round), "items": [{"key": document, "path": document}]},
        },
        {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_LIMIT}},
        *(_claim(run, name) for name in _training_folders(run, stage_status.name)),
    ]
    if needs.shared_memory is not None:
        found.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": str(needs.shared_memory)}})
    return [*found, *needs.volumes]


def mounts(run: Run, stage_status: StageStatus, needs: PodNeeds) -> list[Json]:
    """Return the volume mounts of a stage's container."""
    found: list[Json] = [
        *_workspace_mounts(run, stage_status.name),
        {"name": "documents", "mountPath": DOCUMENTS_PATH, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH_PATH},
    ]
    if needs.shared_memory is not None:
        found.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108 - a path inside the container
    return [*found, *needs.mounts]


def _training_folders(run: Run, stage: str) -> dict[str, str]:
    """Return the folders that an isolated training can write to, by the name of their volume."""
    if stage != TRAINING.name or run.status["resolved"].get("isolation") != "mounts":
        return {}
    found = {"training-folder": run.layout.folder(stage)}
    return found if runs_custom_code(run) else {**found, "training-results": f"{CACHE_RESULTS}/{stage}"}


def _workspace_mounts(run: Run, stage: str) -> list[Json]:
    layout = run.layout
    folders = _training_folders(run, stage)
    if folders:
        whole = {"name": _WORKSPACE, "mountPath": WORKSPACE_PATH, "readOnly": True}
        return [whole, *({**_part(path), "name": name} for name, path in folders.items())]
    published = {DATASET.name: layout.datasets, TOKENIZATION.name: layout.tokens, TRAINING.name: layout.folder(TRAINING.name)}
    earlier = (DATASET.name,) if stage == TOKENIZATION.name else tuple(published) if stage in _LATE else ()
    read_only = [{**_part(published[name]), "readOnly": True} for name in earlier]
    return [{"name": _WORKSPACE, "mountPath": WORKSPACE_PATH}, *read_only]


def _claim(run: Run, name: str) -> Json:
    """Return the claim of the workspace as the volume ``name``."""
    return {"name": name, "persistentVolumeClaim": {"claimName": naming.workspace_claim(run)}}


def _part(path: str) -> Json:
    """Return the mount of a folder of the workspace over the same folder of the whole volume."""
    return {"name": _WORKSPACE, "mountPath": f"{WORKSPACE_PATH}/{path}", "subPath": path}
