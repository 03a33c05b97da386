"""The status server of Kubeflow Trainer 2.3, which is off by default, and a stage's reports to it.

The server takes its certificates and its own token from fixed paths. It gets both in a mount namespace of its own, so the test needs root.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_planes import built, skip_without_go
from controlplane.api import Api
from controlplane.api import eventually as soon
from controlplane.binaries import find
from controlplane.cluster import ControlPlane
from controlplane.ports import answers, free_ports
from controlplane.programs import GENERATIONS
from finetune_contract.progress import Progress
from finetune_operator.core.trainjob_reports import of_trainer
from finetune_stages.sdk.trainer_status import NotReported, StatusServer
from golden import FOLDER

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(600)

_GENERATION = GENERATIONS["2.3"]
_START = """
set -e
mount -t tmpfs none /run
mkdir /run/state && mount --bind "$1" /run/state
account=/run/secrets/kubernetes.io/serviceaccount
mkdir -p $account && cp /run/state/token $account/token
mount -t tmpfs none /tmp
mkdir -p /tmp/k8s-webhook-server && cp -r /run/state/k8s-webhook-server/serving-certs /tmp/k8s-webhook-server/
export TMPDIR=/tmp
exec "$2" --config=/run/state/config.yaml --kubeconfig=/run/state/kubeconfig --feature-gates=TrainJobStatus=true
"""
"""``/var/run`` is a link to ``/run``."""


def _can_unshare() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and os.geteuid() == 0 and subprocess.run([unshare, "-m", "true"], check=False).returncode == 0  # type: ignore[list-item]


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, int]]:
    """A control plane whose Trainer has the status server, and the server's port."""
    skip_without_go()
    if not _can_unshare():
        pytest.skip("no mount namespace of its own: this needs root on Linux")
    plane = ControlPlane(tmp_path_factory.mktemp("gated"))
    binaries = built(lambda: find(_GENERATION))
    plane.up(binaries, _GENERATION)
    try:
        yield plane, _restart_with_gate(plane, binaries.path(_GENERATION.trainer))
    finally:
        plane.down()


def _restart_with_gate(plane: ControlPlane, binary: Path) -> int:
    name = _GENERATION.trainer.name
    folder = plane.state / "controllers" / name
    (port,) = free_ports(1)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "statusServer": {"port": port}}))
    with plane.api() as api:
        (folder / "token").write_text(api.token("kubeflow-system", "kubeflow-trainer-controller-manager"))
        authority = base64.b64encode(plane.authority.pair.certificate.read_bytes()).decode()
        metadata = {"name": "kubeflow-trainer-webhook-cert", "namespace": "kubeflow-system"}
        api.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"ca.crt": authority}})
    plane.processes.stop([process for process in plane.processes.recorded() if process.name == name], 3)
    unshare = str(shutil.which("unshare"))
    plane.processes.start(name, [unshare, "-m", "sh", "-c", _START, "start", str(folder), str(binary)])
    soon(lambda: answers(port), f"the status server listens; {plane.processes.log_tail(name)}", seconds=60)
    return port


@pytest.fixture
def pod(gated: tuple[ControlPlane, int]) -> Iterator[tuple[Api, Object]]:
    """The pod of a TrainJob of ours, and the client."""
    plane, _ = gated
    with plane.api() as api:
        job = yaml.safe_load((FOLDER / "trainjobs" / "sft-minimal-2.3.yaml").read_text())
        job["metadata"] = {"name": job["metadata"]["name"], "namespace": "default"}
        job["spec"]["runtimeRef"]["name"] = "torch-distributed"
        job["spec"]["trainer"]["image"] = "image"
        account = {"name": "finetune-stage", "namespace": "default"}
        api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        api.create(job)
        labels = f"jobset.sigs.k8s.io/jobset-name={job['metadata']['name']}"
        found: list[Object] = []

        def exists() -> bool:
            found[:] = api.call("GET", api.path("v1", "Pod", None, "default"), labelSelector=labels)["items"]
            return bool(found)

        soon(exists, "the TrainJob has a pod", seconds=60)
        yield api, found[0]
        api.delete(job)


def test_the_status_server_accepts_our_reports(gated: tuple[ControlPlane, int], pod: tuple[Api, Object], tmp_path: Path) -> None:
    (plane, port), (api, made) = gated, pod
    (container,) = made["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    server = StatusServer.of_environment(environment)
    assert server is not None, "Trainer injects the three variables beside ours"
    (volume,) = [volume for volume in made["spec"]["volumes"] if volume["name"] == "kubeflow-trainer-token"]
    audience = volume["projected"]["sources"][0]["serviceAccountToken"]["audience"]

    job = made["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"]
    path = server.url.partition(".svc:")[2].partition("/")[2]  # the Service of the server is not here
    here = StatusServer(f"https://127.0.0.1:{port}/{path}", plane.authority.pair.certificate, tmp_path / "token")
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    request = {**kind, "spec": {"audiences": [audience], "expirationSeconds": 3600}}
    address = api.path("v1", "ServiceAccount", "finetune-stage", "default") + "/token"
    here.token.write_text(api.call("POST", address, request)["status"]["token"])

    report = Progress(
        45, step=450, total_steps=1000, epoch=1.35, total_epochs=3, eta_seconds=1200, loss=1.875, learning_rate=2e-5,
        tokens_per_second=123.5, time=1_795_000_000,
    )  # fmt: skip
    here.post(report)
    stored = api.get("trainer.kubeflow.org/v1alpha1", "TrainJob", job, "default")
    assert of_trainer(stored["status"]["trainerStatus"]) == Progress(
        45, step=450, total_steps=1000, epoch=1.35, eta_seconds=1200, loss=1.875, tokens_per_second=123.5, time=1_795_000_000
    )
    here.post(Progress(100, time=1_795_000_100))
    stored = api.get("trainer.kubeflow.org/v1alpha1", "TrainJob", job, "default")
    assert stored["status"]["trainerStatus"] == {"progressPercentage": 100, "lastUpdatedTime": "2026-11-18T11:08:20Z"}

    here.token.write_text("wrong")
    with pytest.raises(NotReported, match="HTTP 403"):
        here.post(report)
