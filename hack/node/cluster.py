"""A control plane with a node, from its first process to its last."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from pathlib import Path

from controlplane.api import Api
from controlplane.binaries import Binaries
from controlplane.cluster import ROOT, Access, ControlPlane
from controlplane.programs import Generation, GenerationName
from controlplane.trainer import Limits

from . import cgroups, configuration, images, volumes
from .configuration import DNS, NAME, SOCKET
from .machine import program
from .namespaces import PROGRAMS, STATE, Namespaces, Network
from .programs import COREDNS, KUBE_PROXY, KUBELET, find

_CONTAINERD = "containerd"


def default_state(generation: GenerationName) -> Path:
    """Return the folder of the node of this checkout, for tests and for use by hand."""
    return ROOT / ".cache" / "node" / generation


class NodeCluster(ControlPlane):
    """A control plane with a node, with all state in the folder ``state``. The API server listens at the veth pair of the node."""

    program = Path(__file__).parent

    def __init__(self, state: Path) -> None:
        self.network = Network.of(state)
        super().__init__(state, host=self.network.host)
        self.folder = state / "node"
        self.namespaces = Namespaces(self.folder, self.network, self.processes)

    @property
    def gateway(self) -> str:
        """Return the address of this machine for pods."""
        return self.network.host

    def down(self) -> None:
        """Stop everything, and remove the files of the node. Its containers end with its namespaces."""
        self.namespaces.close()
        super().down()
        cgroups.remove(self.network.interface)
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, archive: Path) -> list[str]:
        """Load the images of an archive into the node, and return their names.

        Raises:
            ValueError: no node runs.
            OSError: containerd rejects them.
        """
        if not any(process.name == _CONTAINERD and process.alive for process in self.processes.recorded()):
            raise ValueError(f"{self.state}: no node runs there; start one with python hack/node up")
        names = images.load(self.namespaces, archive)
        mark = self._mark(archive)
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
        return names

    def provide(self, archive: Path) -> None:
        """Load an archive unless it is loaded; several processes may do so at the same time."""
        with self.locked():
            if not self._mark(archive).exists():
                self.load(archive)

    def _mark(self, archive: Path) -> Path:
        """Return the file that marks an archive as loaded."""
        found = archive.stat()
        about = f"{archive.absolute()} {found.st_size} {found.st_mtime_ns}"
        return self.folder / "images" / hashlib.sha256(about.encode()).hexdigest()

    def restart_kubelet(self) -> None:
        """Restart the kubelet, like an update of the node. Pods keep running."""
        self.processes.stop([one for one in self.processes.recorded() if one.name == KUBELET.name], 5)
        self._start_kubelet()

    def _start(self, binaries: Binaries, generation: Generation | None, limits: Limits | None, audit: Path | None) -> Access:
        self.namespaces.open(find().folder)
        return super()._start(binaries, generation, limits, audit)

    def _nodes(self) -> list[str]:
        pair = self.authority.client("api-server-at-kubelets", "kube-apiserver-kubelet-client")
        return [
            f"--kubelet-client-certificate={pair.certificate}", f"--kubelet-client-key={pair.key}",
            f"--kubelet-certificate-authority={self.authority.pair.certificate}", "--kubelet-preferred-address-types=InternalIP",
        ]  # fmt: skip

    def _extend(self, api: Api) -> None:
        cgroups.create(self.network.interface)
        configuration.write(self.folder, self.network.node, self.network.interface)
        self._identities(api.address)
        _grant(api)
        self.namespaces.start(_CONTAINERD, program("containerd"), "--config", f"{STATE}/containerd.toml")
        ctr = [program("ctr"), "--address", SOCKET, "version"]
        self._await(lambda: self.namespaces.run(*ctr) != "", "containerd answers")
        own = self.folder / "own.tar"
        images.write_own(own, platform.machine())
        self.load(own)
        self._start_kubelet()
        self.namespaces.start(KUBE_PROXY.name, f"{PROGRAMS}/{KUBE_PROXY.name}", "--config", f"{STATE}/kube-proxy.yaml")
        self.namespaces.start(COREDNS.name, f"{PROGRAMS}/{COREDNS.name}", "-conf", f"{STATE}/Corefile")
        for document in _dns(self.network.node):
            api.apply(document)
        volumes.create(api, self.folder / "volumes")
        self._await(lambda: _is_ready(api), "the node is ready")
        self.processes.start("volumes", [sys.executable, self.program, "volumes", "--state", self.state])

    def _start_kubelet(self) -> None:
        self.namespaces.start(
            KUBELET.name, f"{PROGRAMS}/{KUBELET.name}", "--config", f"{STATE}/kubelet.yaml",
            "--kubeconfig", f"{STATE}/kubelet.kubeconfig", "--hostname-override", NAME, "--node-ip", self.network.node,
            "--root-dir", f"{STATE}/kubelet", "--cert-dir", f"{STATE}/kubelet",
        )  # fmt: skip

    def _identities(self, address: str) -> None:
        """Write the certificates of the programs on the node, each with its own rights."""
        shutil.copy(self.authority.pair.certificate, self.folder / "authority.crt")
        serving = self.authority.server("kubelet", (self.network.node,))
        shutil.copy(serving.certificate, self.folder / "kubelet.crt")
        shutil.copy(serving.key, self.folder / "kubelet.key")
        groups = {KUBELET.name: ["system:nodes"], KUBE_PROXY.name: [], COREDNS.name: []}
        users = {KUBELET.name: f"system:node:{NAME}", KUBE_PROXY.name: "system:kube-proxy", COREDNS.name: _COREDNS_USER}
        for name, user in users.items():
            pair = self.authority.client(f"{name}-client", user, groups[name])
            self.authority.kubeconfig(self.folder / f"{name}.kubeconfig", address, pair)


_COREDNS_USER = "system:coredns"


def _grant(api: Api) -> None:
    """Create the rights that Kubernetes leaves to installers: those of the API server on kubelets, and of the DNS server to read."""
    metadata = {"name": _COREDNS_USER}
    core = {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]}
    slices = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    group = "rbac.authorization.k8s.io"
    api.apply({"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": [core, slices]})
    roles = {"kube-apiserver-kubelet-client": "system:kubelet-api-admin", _COREDNS_USER: _COREDNS_USER}
    for user, role in roles.items():
        api.apply(
            {
                "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            }
        )  # fmt: skip


def _dns(address: str) -> list[dict[str, object]]:
    """Return the Service for DNS, and its endpoint on the node."""
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    labels = {"kubernetes.io/service-name": "kube-dns"}
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": DNS, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
            "metadata": {"name": "kube-dns-node", "namespace": "kube-system", "labels": labels},
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]  # fmt: skip


def _is_ready(api: Api) -> bool:
    conditions = api.get("v1", "Node", NAME)["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
