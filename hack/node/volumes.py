"""Shared storage of a node: a pool of folders as local volumes (ReadWriteMany), which are reused after release."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from controlplane.api import Api, RefusedError

from .configuration import NAME
from .namespaces import STATE

CLASS = "finetune-node"
_COUNT = 24
_CAPACITY = "1Ti"
_MODE = 0o2775
"""Mode of a folder: writable for the group of root, which users without an entry in the image have, or for the pod's ``fsGroup``."""
_POLL_SECONDS = 0.5

Object = dict[str, Any]


def create(api: Api, folder: Path) -> None:
    """Create the pool, and the default storage class."""
    metadata = {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    api.apply(
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata,
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Retain",
        }
    )  # fmt: skip
    for number in range(_COUNT):
        _prepare(folder / f"{CLASS}-{number:02}")
        api.apply(_volume(f"{CLASS}-{number:02}"))


def keep(api: Api, folder: Path) -> None:
    """Empty released volumes and make them available again, without end."""
    while True:
        with suppress(OSError, RefusedError):  # it is retried
            for volume in api.list("v1", "PersistentVolume"):
                if volume["spec"].get("storageClassName") == CLASS and volume.get("status", {}).get("phase") == "Released":
                    _prepare(folder / volume["metadata"]["name"])
                    api.patch({"apiVersion": "v1", "kind": "PersistentVolume", **volume}, {"spec": {"claimRef": None}})
        time.sleep(_POLL_SECONDS)


def _volume(name: str) -> Object:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": _CAPACITY}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "storageClassName": CLASS, "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": f"{STATE}/volumes/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }  # fmt: skip


def _prepare(folder: Path) -> None:
    """Empty a folder. The folder itself stays, because a pod that is ending may use it."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    os.chown(folder, 0, 0)
    folder.chmod(_MODE)
