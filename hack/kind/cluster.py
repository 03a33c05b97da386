"""A cluster of kind with the interface that tests use: a control plane, accessed with an administrator's certificate."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from controlplane.binaries import build
from controlplane.cluster import ROOT, ControlPlane, own_definitions
from controlplane.programs import GENERATIONS, KUBECTL, GenerationName
from controlplane.trainer import install

_CONFIGURATION = Path(__file__).with_name("kind.yaml")
_TRAINER = "https://github.com/kubeflow/trainer.git/manifests/overlays/{overlay}?ref={version}"
"""The overlay in Trainer's documentation, which includes JobSet."""


class KindCluster(ControlPlane):
    """A cluster of kind, named after its release of Trainer. kind manages it; this class accesses it."""

    program = Path(__file__).parent

    def __init__(self, generation: GenerationName) -> None:
        super().__init__(ROOT / ".cache" / "kind" / generation)
        self.generation = generation
        self.name = f"finetune-{generation.replace('.', '-')}"

    @classmethod
    def running(cls, generation: GenerationName) -> KindCluster:
        """Return the running cluster with this release of Trainer.

        Raises:
            ValueError: there is none.
        """
        cluster = cls(generation)
        if cluster.access is None:
            raise ValueError(f"kind: no cluster runs; run python hack/kind up --trainer {generation}")
        return cluster

    def start(self) -> None:
        """Create the cluster, with Trainer and the definitions of this project.

        Raises:
            OSError: kind or kubectl failed.
        """
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _run("kind", "create", "cluster", "--name", self.name, "--config", str(_CONFIGURATION), "--wait", "180s")
        config = yaml.safe_load(_run("kind", "get", "kubeconfig", "--name", self.name))
        self._remember(config)
        trainer = GENERATIONS[self.generation].trainer.version
        for overlay in ("manager", "runtimes"):
            where = _TRAINER.format(overlay=overlay, version=trainer)
            self._kubectl("apply", "--server-side", "--force-conflicts", "-k", where)
            self._kubectl("wait", "--for=condition=Available", "deployment", "--all", "--all-namespaces", "--timeout=300s")
        with self.api() as api:
            install(api, own_definitions())

    def down(self) -> None:
        """Remove the cluster."""
        _run("kind", "delete", "cluster", "--name", self.name)
        self._record.unlink(missing_ok=True)

    @property
    def gateway(self) -> str:
        """Return the address of this machine for pods: the gateway of Docker's network for kind."""
        (network,) = json.loads(_run("docker", "network", "inspect", "kind"))
        return next(str(one["Gateway"]) for one in network["IPAM"]["Config"] if ":" not in one["Subnet"])

    def provide(self, archive: Path) -> None:
        """Load the images of an archive into the node."""
        _run("kind", "load", "image-archive", str(archive), "--name", self.name)

    def _kubectl(self, *words: str) -> str:
        return _run(str(build(None).path(KUBECTL)), "--kubeconfig", str(self._kubeconfig), *words)

    def _remember(self, config: dict[str, Any]) -> None:
        folder = self.authority.folder
        folder.mkdir(exist_ok=True, mode=0o700)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        for file, text in (
            (self.authority.pair.certificate, cluster["certificate-authority-data"]),
            (self.admin.certificate, user["client-certificate-data"]),
            (self.admin.key, user["client-key-data"]),
        ):
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(text))
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
        record = {"address": cluster["server"], "trainer": self.generation, "binaries": str(build(None).folder), "limits": None}
        self._record.write_text(json.dumps({**record, "sources": self.sources()}), encoding="utf-8")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()[-1500:]}")
    return done.stdout
