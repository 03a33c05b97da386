"""The operator as its users install it: from its image, by its manifests, in a namespace of a cluster with a node."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import pydocs
from controlplane.api import Api, eventually
from controlplane.binaries import find
from controlplane.cluster import ROOT
from controlplane.programs import KUBECTL
from hub import Hub
from kind.cluster import KindCluster
from node.cluster import NodeCluster

Object = dict[str, Any]
OPERATOR, STAGES, RUNTIME = "finetune-operator", "finetune-stages:test", "torch-distributed"
_IMAGES = dict.fromkeys(("dataset", "model", "evaluation", "registration"), STAGES)
_SMALL = {"cpu": "500m", "memory": "3Gi"}


@dataclass
class Site:
    """Where the operator is deployed, and how people work with it."""

    plane: NodeCluster | KindCluster
    api: Api
    namespace: str
    folder: Path
    hub: Hub

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """What ``kubectl`` prints.

        Raises:
            AssertionError: it failed.
        """
        access = self.plane.access
        assert access is not None
        command: list[str | Path] = [
            find(None).path(KUBECTL),
            "--kubeconfig",
            access.kubeconfig,
            "--namespace",
            self.namespace,
            *words,
        ]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, name: str, spec: Object) -> None:
        """Make a run, as people do: ``kubectl apply -f``."""
        run = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(run))

    def status(self, name: str) -> Object:
        """Return the status of the run."""
        status: Object = self.api.get("finetunerun.io/v1alpha1", "FineTuneRun", name, self.namespace).get("status") or {}
        return status

    def ended(self, name: str, seconds: float = 400) -> Object:
        """The run's status at its end."""
        eventually(lambda: "finishedAt" in self.status(name), f"run {name} has ended", seconds)
        return self.status(name)

    def pods(self, run: str, stage: str | None = None) -> list[Object]:
        """The pods of a run's stages."""
        wanted = {"finetunerun.io/run": run, **({"finetunerun.io/stage": stage} if stage else {})}
        pods = self.api.list("v1", "Pod", self.namespace)
        return [pod for pod in pods if wanted.items() <= (pod["metadata"].get("labels") or {}).items()]


@contextmanager
def deployed_at(plane: NodeCluster | KindCluster, api: Api, namespace: str, folder: Path, tiny_model: Path) -> Iterator[Site]:
    """The operator in ``namespace``, ready, and a hub with a data set and with the model that is the default."""
    with Hub(folder / "hub", plane.gateway) as hub:
        rows = folder / "rows.jsonl"
        pydocs.write_jsonl(rows, pydocs.rows("signature", 120))
        hub.add("dataset", "org/chat", {"train.jsonl": rows.read_bytes()})
        hub.add("model", "Qwen/Qwen2.5-1.5B-Instruct", shutil.copytree(tiny_model, folder / "model"))
        site = Site(plane, api, namespace, folder, hub)
        site.kubectl("apply", "--server-side", "-k", str(_overlay(folder, namespace, hub.url)))
        try:
            site.kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{site.kubectl('describe', 'pods')}") from None
        yield site


def _overlay(folder: Path, namespace: str, hub: str) -> Path:
    """The overlay ``namespaced`` for this namespace, with the images of the tests and a configuration for a small node."""
    for part in ("manifests", "crds"):
        shutil.copytree(ROOT / part, folder / part)
    overlay = folder / "manifests/overlays/namespaced"
    file = overlay / "kustomization.yaml"
    text = re.sub(r"(?m)^namespace: .*$", f"namespace: {namespace}", file.read_text(encoding="utf-8"))
    file.write_text(f"{text}\nimages:\n- name: {OPERATOR}\n  newTag: test\n", encoding="utf-8")
    configuration = {
        "images": _IMAGES, "environment": {"HF_ENDPOINT": hub, "OMP_NUM_THREADS": "1"}, "progressSeconds": 1, "retrySeconds": 1,
        "defaults": {
            "training": {
                "runtimeRef": RUNTIME, "image": STAGES, "workers": 1, "gpusPerWorker": 0, "resources": _SMALL, "sharedMemory": "64Mi",
                "effectiveBatchSize": 16, "maxSeqLen": 256, "maxTokensPerGPU": 4096,
            },
            "evaluation": {"tasks": [], "gpus": 0, "resources": _SMALL},
        },
    }  # fmt: skip
    named = f'namespaces: ["{namespace}"]\n'
    (overlay / "configuration.yaml").write_text(named + yaml.safe_dump(configuration), encoding="utf-8")
    return overlay
