"""Shared storage of a node: a pool of folders as local volumes, which many pods may write (ReadWriteMany), used again when released."""

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
"""Writable for the group of root, which is that of any user id that an image does not know; else for the pod's ``fsGroup``."""
_LOOK_SECONDS = 0.5

Object = dict[str, Any]


def create(api: Api, folder: Path) -> None:
    """The pool, and the class that is the cluster's default."""
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
    """Empty what was released, and offer it again; for ever."""
    while True:
        with suppress(OSError, RefusedError):  # another look follows
            for volume in api.list("v1", "PersistentVolume"):
                if volume["spec"].get("storageClassName") == CLASS and volume.get("status", {}).get("phase") == "Released":
                    _prepare(folder / volume["metadata"]["name"])
                    api.patch({"apiVersion": "v1", "kind": "PersistentVolume", **volume}, {"spec": {"claimRef": None}})
        time.sleep(_LOOK_SECONDS)


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
    """An empty folder. The folder itself stays: a pod that is slow to end may hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    os.chown(folder, 0, 0)
    folder.chmod(_MODE)
