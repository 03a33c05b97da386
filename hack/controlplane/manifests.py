"""The manifests of JobSet and Trainer, rendered with kustomize as in their documentation."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

_JOBSET = "default"
_TRAINER = {
    # The overlay that Trainer documents, without the copy of JobSet that it downloads; its one runtime is for tests.
    "namespace": "kubeflow-system",
    "resources": [
        "overlays/manager/namespace.yaml",
        "base/crds",
        "base/rbac",
        "base/webhook",
        "base/manager",
        "base/runtimes/torch_distributed.yaml",
    ],
}
_NOT_HERE = frozenset({"Deployment", "Service", "Secret"})
"""Left out, because the controllers run as processes with certificates of the control plane."""


def render(module: Path, kubectl: Path, target: Path) -> None:
    """Render the manifests of ``module``, a folder in Go's cache, into the JSON file ``target``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shipped"
        trainer = (module / "manifests").is_dir()
        shutil.copytree(module / ("manifests" if trainer else "config"), root, copy_function=shutil.copyfile)
        if trainer:
            (root / "kustomization.yaml").write_text(yaml.safe_dump(_TRAINER), encoding="utf-8")
        else:
            root /= _JOBSET
        done = subprocess.run([kubectl, "kustomize", str(root)], capture_output=True, text=True, check=True)
    documents = [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one and one["kind"] not in _NOT_HERE]
    target.parent.mkdir(exist_ok=True)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(documents), encoding="utf-8")
    part.rename(target)


def configuration(documents: Iterable[Object]) -> Object:
    """Return the configuration in the manifests."""
    text = next(one["data"]["controller_manager_config.yaml"] for one in documents if one["kind"] == "ConfigMap")
    shipped: Object = yaml.safe_load(text)
    return shipped


def served_at(document: Any, port: int, authority: bytes) -> Any:
    """Return ``document`` with its webhooks at a port of this machine instead of a Service."""
    if isinstance(document, list):
        return [served_at(one, port, authority) for one in document]
    if not isinstance(document, dict):
        return document
    if isinstance(service := document.get("service"), dict) and "path" in service:
        address = f"https://127.0.0.1:{port}{service['path']}"
        return {"url": address, "caBundle": base64.b64encode(authority).decode()}
    return {name: served_at(value, port, authority) for name, value in document.items()}
