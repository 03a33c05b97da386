"""The operator as a process on a control plane, with exactly the rights of its manifests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from controlplane.api import Api
from controlplane.cluster import ControlPlane

BASE = Path(__file__).parents[2] / "manifests" / "base"
Object = dict[str, Any]


def install_rights(api: Api, namespace: str) -> None:
    """The operator's ServiceAccount with its roles, and those of people, as ``manifests/base`` has them."""
    for name in ("service-account", "roles", "user-roles"):
        for document in yaml.safe_load_all((BASE / f"{name}.yaml").read_text(encoding="utf-8")):
            if not document["kind"].startswith("Cluster"):
                document["metadata"]["namespace"] = namespace
            else:
                document["metadata"]["name"] += f"-{namespace}" if document["kind"] == "ClusterRoleBinding" else ""
            for subject in document.get("subjects") or ():
                subject["namespace"] = namespace
            api.apply(document)


def install_overlay(api: Api, kubectl: Path, overlay: str, namespace: str, folder: Path) -> None:
    """What an overlay of ``manifests`` makes for ``namespace``, but the Deployment: the operator of the tests is a process."""
    for part in ("manifests", "crds"):
        shutil.copytree(BASE.parents[1] / part, folder / part)
    kustomization = folder / "manifests/overlays" / overlay / "kustomization.yaml"
    text = kustomization.read_text(encoding="utf-8")
    kustomization.write_text(re.sub(r"(?m)^namespace: .*$", f"namespace: {namespace}", text), encoding="utf-8")
    rendered = subprocess.run([kubectl, "kustomize", kustomization.parent], check=True, capture_output=True, text=True).stdout
    for document in yaml.safe_load_all(rendered):
        if document["kind"] not in ("Deployment", "PodDisruptionBudget", "Namespace", "CustomResourceDefinition"):
            api.apply(document)


def kubeconfig(plane: ControlPlane, token: str, namespace: str, file: Path) -> Path:
    """A kubeconfig for whoever holds ``token``."""
    access = plane.access
    assert access is not None
    cluster = {"server": access.address, "certificate-authority": str(plane.authority.pair.certificate)}
    context = {"cluster": "here", "user": "operator", "namespace": namespace}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "operator", "user": {"token": token}}], "contexts": [{"name": "here", "context": context}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


@dataclass
class Operator:
    """A running operator."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[Object]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def problems(self) -> list[Object]:
        """What is not just news."""
        return [line for line in self.lines() if line["level"] not in ("INFO", "DEBUG")]

    async def metrics(self) -> str:
        """Return what Prometheus would read."""
        port = next(int(line["message"].rpartition(" ")[2]) for line in self.lines() if "serving health" in line["message"])
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
            return await response.text()

    def kill(self) -> None:
        """As a node that goes down ends it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    async def stop(self, seconds: float = 15) -> int:
        """As a kubelet ends it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, seconds)


@contextlib.asynccontextmanager
async def operator(config: Path, configuration: Mapping[str, Any], folder: Path) -> AsyncIterator[Operator]:
    """An operator with a kubeconfig and a configuration, in a folder of its own. It is ended with the context."""
    folder.mkdir(parents=True)
    file = folder / "configuration.yaml"
    file.write_text(yaml.safe_dump(dict(configuration)), encoding="utf-8")
    log = folder / "log"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    words = ["-m", "finetune_operator", "--kubeconfig", str(config), "--config", str(file), "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *words], env=kept, stdout=output, stderr=output, cwd=folder)
    running = Operator(process, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.kill()
