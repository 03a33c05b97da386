"""A real control plane for benchmarks: one node whose pods end after a set time, a volume, and the operator as a process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT / "hack"), str(ROOT / "tests")]

from controlplane.api import Api, eventually  # noqa: E402
from controlplane.binaries import build  # noqa: E402
from controlplane.cluster import ControlPlane  # noqa: E402
from controlplane.programs import GENERATIONS  # noqa: E402
from controlplane.trainer import Limits  # noqa: E402

Object = dict[str, Any]
CLAIM = "shared"
SPEC: Object = {
    "dataset": {"uri": "org/chat"}, "model": {"uri": "org/tiny"}, "storage": {"claimName": CLAIM},
    "training": {"gpusPerWorker": 0, "runtimeRef": "torch-distributed"}, "evaluation": {"gpus": 0},
}  # fmt: skip
"""A run of five stages: dataset and model, tokenization, training, evaluation. Runs share a claim, so that no provisioner is measured."""
_QPS = 2000
_AS_POD = (
    "unshare", "--mount", "sh", "-ec",
    'mount -t tmpfs tmpfs /run; mkdir -p /run/secrets/kubernetes.io; cp -r "$0" /run/secrets/kubernetes.io/serviceaccount; exec "$@"',
)  # fmt: skip
"""Run a program as in a pod, with its ServiceAccount where a kubelet puts it. This needs root."""
_NODE = "bench"


@dataclass
class Cluster:
    """The control plane with everything that a benchmark needs."""

    plane: ControlPlane
    folder: Path
    api: Api
    audit: Path

    @property
    def address(self) -> str:
        """Return the address of the API server."""
        access = self.plane.access
        if access is None:
            raise SystemExit("control plane: not running any more; see its logs below .cache")
        return access.address

    def kubeconfig(self, user: str) -> Path:
        """Write the kubeconfig of an administrator, whose name is the user in the audit log."""
        pair = self.plane.client(f"bench-{user}", f"bench-{user}", ["system:masters"])
        return self.plane.authority.kubeconfig(self.folder / f"{user}.kubeconfig", self.address, pair)

    def namespace(self, name: str) -> str:
        """Create a namespace with a bound claim."""
        self.api.close()  # the server closes a connection that is idle for minutes
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        eventually(lambda: self.api.get("v1", "ServiceAccount", "default", name) != {}, f"{name} has a ServiceAccount")
        size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": name, "name": CLAIM}
        volume = {
            "capacity": size, "accessModes": modes, "storageClassName": "", "claimRef": claim, "hostPath": {"path": "/nowhere"},
            "persistentVolumeReclaimPolicy": "Retain",
        }  # fmt: skip
        self.api.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
        spec = {"accessModes": modes, "resources": {"requests": size}, "storageClassName": "", "volumeName": name}
        metadata = {"name": CLAIM, "namespace": name}
        self.api.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
        eventually(
            lambda: self.api.get("v1", "PersistentVolumeClaim", CLAIM, name)["status"]["phase"] == "Bound", "the claim is bound"
        )
        return name

    @contextlib.contextmanager
    def node(self, namespace: str, seconds: float = 0.0) -> Iterator[None]:
        """Run the pods of a namespace in this context; each succeeds after ``seconds``."""
        words = ["--kubeconfig", self.kubeconfig("node"), "--namespace", namespace, "--seconds", seconds]
        with self._process("instant_node.py", *words):
            eventually(lambda: _is_ready(self.api), "the node is ready", 120)
            yield

    @contextlib.contextmanager
    def bare_client(self, namespace: str, runs: int, active: int, rate: float) -> Iterator[subprocess.Popen[bytes]]:
        """Run the bare client in this context."""
        words = [
            "--kubeconfig",
            self.kubeconfig("bare"),
            "--namespace",
            namespace,
            "--runs",
            runs,
            "--active",
            active,
            "--rate",
            rate,
        ]
        with self._process("bare_client.py", *words) as process:
            yield process

    @contextlib.contextmanager
    def operator(self, namespace: str, **configuration: Any) -> Iterator[Operator]:
        """Run the operator for a namespace in this context."""
        file, log = self.folder / "operator.yaml", self.folder / f"operator-{time.monotonic_ns()}.log"
        file.write_text(yaml.safe_dump({"namespaces": [namespace], **configuration}), encoding="utf-8")
        words = [*_AS_POD, str(self._service_account(namespace)), sys.executable, "-m", "finetune_operator"]
        words += ["--config", str(file), "--host", "127.0.0.1", "--port", "0"]
        address = urlsplit(self.address)
        service = {"KUBERNETES_SERVICE_HOST": address.hostname or "", "KUBERNETES_SERVICE_PORT": str(address.port)}
        with log.open("wb") as output:
            process = subprocess.Popen(words, stdout=output, stderr=output, env=os.environ | service)
        operator = Operator(process, log)
        try:
            eventually(lambda: operator.metric("finetune_leader") == 1, "the operator leads", 120)
            yield operator
        finally:
            process.terminate()
            process.wait(30)

    def _service_account(self, namespace: str) -> Path:
        """Write the files that a kubelet puts into the operator's pod. The account has all rights, and its own name in the audit log."""
        metadata = {"name": "operator", "namespace": namespace}
        self.api.close()  # the server closes a connection that is idle for minutes
        self.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        group = "rbac.authorization.k8s.io"
        self.api.create({
            "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"operator-{namespace}"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        })  # fmt: skip
        files = self.folder / f"account-{namespace}"
        files.mkdir()
        (files / "token").write_text(self.api.token(namespace, "operator"))
        (files / "namespace").write_text(namespace)
        shutil.copy(self.plane.authority.pair.certificate, files / "ca.crt")
        return files

    @contextlib.contextmanager
    def _process(self, program: str, *words: object) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen([sys.executable, HERE / program, *map(str, words)])
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)


@dataclass
class Operator:
    """A running operator, measured from outside."""

    process: subprocess.Popen[bytes]
    log: Path
    port: str | None = None
    """Address of its metrics, from its log."""

    def metric(self, name: str) -> float:
        """Return one of its metrics; 0 before it is served."""
        for line in self._metrics().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def resident_mb(self, which: str = "VmRSS") -> float:
        """Return its resident memory in MB: at present, or the peak (``VmHWM``)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(which))

    def cpu_seconds(self) -> float:
        """Return its processor time in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def _metrics(self) -> str:
        if self.process.poll() is not None:
            raise SystemExit(f"operator: ended; its log:\n{self.log.read_text()[-2000:]}")
        if self.port is None:
            whole = [
                line for line in self.log.read_text().splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")
            ]
            said = [json.loads(line)["message"] for line in whole]
            self.port = next((words.rpartition(" ")[2] for words in said if "serving health" in words), None)
        if self.port is None:
            return ""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a separate control plane with an audit log and an empty node."""
    folder = Path(tempfile.mkdtemp(prefix="finetune-bench-"))
    plane, audit = ControlPlane(folder / "plane"), folder / "audit.log"
    try:
        with plane.locked():
            plane.up(build(GENERATIONS["2.1"]), GENERATIONS["2.1"], Limits(_QPS, 2 * _QPS), audit)
        with plane.api() as api:
            api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": _NODE}})
            yield Cluster(plane, folder, api, audit)
    finally:
        plane.down()
        shutil.rmtree(folder, ignore_errors=True)


def _is_ready(api: Api) -> bool:
    node = api.get("v1", "Node", _NODE)
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions") or ())
    return ready and not node["spec"].get("taints")
