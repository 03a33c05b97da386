"""JobSet and Kubeflow Trainer beside a control plane, with their own manifests, webhooks and rights."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import manifests
from .api import Api, Object, eventually
from .binaries import Binaries
from .certificates import Authority
from .ports import free_ports
from .processes import Processes
from .programs import Generation, Program

_WEBHOOK_CERTIFICATES = "k8s-webhook-server/serving-certs"
"""Below the folder for temporary files. It is controller-runtime's default, which Trainer cannot change."""
_TOKEN_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Limits:
    """Limits on the calls of each controller to the API server, instead of its defaults."""

    qps: int
    burst: int


class Controller:
    """A controller as a process on this machine, with the identity of its own ServiceAccount."""

    def __init__(self, program: Program, binaries: Binaries, folder: Path) -> None:
        self.program = program
        self.documents: list[Object] = json.loads(binaries.manifests(program).read_bytes())
        self._binary = binaries.path(program)
        self._folder = folder / program.name
        self._webhook_port, self._health_port = free_ports(2)

    def installed(self, authority: bytes) -> list[Object]:
        """Return what is applied before it starts. Its webhooks reject everything until then."""
        documents: list[Object] = manifests.served_at(self.documents, self._webhook_port, authority)
        return [one for one in documents if one["kind"] != "ConfigMap" and one not in self.runtimes]

    @property
    def runtimes(self) -> list[Object]:
        """Return what its webhooks validate, applied when it is ready."""
        return [one for one in self.documents if one["kind"] == "ClusterTrainingRuntime"]

    def start(self, processes: Processes, authority: Authority, api: Api, limits: Limits | None) -> None:
        """Start it with the identity of its ServiceAccount."""
        serving = self._folder / _WEBHOOK_CERTIFICATES
        serving.mkdir(parents=True, exist_ok=True)
        pair = authority.server(f"{self.program.name}-webhook")
        shutil.copy(pair.certificate, serving / "tls.crt")
        shutil.copy(pair.key, serving / "tls.key")
        kubeconfig = authority.kubeconfig(self._folder / "kubeconfig", api.address, api.token(*self.account, _TOKEN_SECONDS))
        config = self._folder / "config.yaml"
        config.write_text(yaml.safe_dump(self._configuration(serving, limits)), encoding="utf-8")
        command: list[str | Path] = [self._binary, f"--config={config}", f"--kubeconfig={kubeconfig}"]
        processes.start(self.program.name, command, {"TMPDIR": str(self._folder)})

    @property
    def account(self) -> tuple[str, str]:
        """Return namespace and name of its ServiceAccount."""
        metadata = next(one["metadata"] for one in self.documents if one["kind"] == "ServiceAccount")
        return metadata["namespace"], metadata["name"]

    def is_ready(self) -> bool:
        """Return whether its webhooks answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._health_port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def _configuration(self, serving: Path, limits: Limits | None) -> Object:
        """Return the shipped configuration without the parts that need a pod."""
        shipped = manifests.configuration(self.documents)
        is_jobset = shipped["apiVersion"].startswith("config.jobset")
        changed: dict[str, Any] = {
            "health": {**shipped.get("health", {}), "healthProbeBindAddress": f"127.0.0.1:{self._health_port}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"port": self._webhook_port, "host": "127.0.0.1", **({"certDir": str(serving)} if is_jobset else {})},
            "leaderElection": {**shipped["leaderElection"], "leaderElect": False},
            ("internalCertManagement" if is_jobset else "certManagement"): {"enable": False},
        }
        if limits is not None:
            changed["clientConnection"] = {"qps": limits.qps, "burst": limits.burst}
        return {**shipped, **changed}


def controllers(generation: Generation | None, binaries: Binaries, folder: Path) -> list[Controller]:
    """Return the controllers of JobSet and Trainer, or none."""
    wanted = () if generation is None else (generation.jobset, generation.trainer)
    return [Controller(program, binaries, folder) for program in wanted]


def install(api: Api, documents: Sequence[Object]) -> None:
    """Apply ``documents``, definitions before the rest, and wait until the API server serves them."""
    for one in sorted(documents, key=lambda document: _ORDER.get(document["kind"], len(_ORDER))):
        api.apply(one)
    definitions = [one["metadata"]["name"] for one in documents if one["kind"] == "CustomResourceDefinition"]
    for name in definitions:
        eventually(lambda name=name: is_established(api, name), f"definition {name} is served")  # type: ignore[misc]


def is_established(api: Api, definition: str) -> bool:
    """Return whether the API server serves a CustomResourceDefinition."""
    status = api.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", definition).get("status", {})
    return any(one["type"] == "Established" and one["status"] == "True" for one in status.get("conditions") or ())


_ORDER = {"Namespace": 0, "CustomResourceDefinition": 1, "ServiceAccount": 2}
