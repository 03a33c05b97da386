"""The configuration of each program of a node. Paths are those inside its namespaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .machine import program
from .namespaces import SERVICES, STATE

NAME = "finetune-node"
PODS = "10.244.0.0/24"
DNS = "10.96.0.10"
DOMAIN = "cluster.local"
SOCKET = f"{STATE}/containerd.sock"
SANDBOX = "localhost/finetune-node/busybox:1"

Document = dict[str, Any]


def write(folder: Path, address: str, cgroup: str) -> None:
    """Write all of them into ``folder``, for a node at ``address`` with containers below ``cgroup``."""
    (folder / "cni").mkdir()
    (folder / "containerd.toml").write_text(_containerd(), encoding="utf-8")
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_network()), encoding="utf-8")
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(address, cgroup)), encoding="utf-8")
    (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(_kube_proxy()), encoding="utf-8")
    (folder / "Corefile").write_text(_coredns(address), encoding="utf-8")
    (folder / "resolv.conf").write_text(f"nameserver {address}\n", encoding="utf-8")


def _containerd() -> str:
    # Version 2 of the format: containerd 1.6 reads no later one, and 2.x reads it too.
    return f"""
version = 2
root = "{STATE}/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{STATE}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX}"
  # Otherwise no pod starts where root may not lower oom_score_adj.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{Path(program("/usr/lib/cni/ptp")).parent}"
    conf_dir = "{STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _pod_network() -> Document:
    # A routed veth pair for each pod: with a bridge, Services need a kernel module that may be missing.
    ranges = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [{"type": "ptp", "ipMasq": True, "ipam": ranges}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}


def _kubelet(address: str, cgroup: str) -> Document:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": address, "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{STATE}/authority.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{STATE}/kubelet.crt", "tlsPrivateKeyFile": f"{STATE}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{cgroup}", "failCgroupV1": False, "failSwapOn": False,
        "clusterDNS": [DNS], "clusterDomain": DOMAIN, "resolvConf": f"{STATE}/resolv.conf",
        "podLogsDir": f"{STATE}/pod-logs", "volumePluginDir": f"{STATE}/volume-plugins",
        # Disks and memory are shared with the machine, so eviction starts only shortly before it fails.
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi"},
        "imageGCHighThresholdPercent": 99, "imageGCLowThresholdPercent": 98,
        "nodeStatusUpdateFrequency": "5s",
    }  # fmt: skip


def _kube_proxy() -> Document:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{STATE}/kube-proxy.kubeconfig"},
        "hostnameOverride": NAME, "mode": "iptables", "clusterCIDR": PODS,
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0},  # limits of the machine, not of the node
    }  # fmt: skip


def _coredns(address: str) -> str:
    return f"""
{DOMAIN}:53 in-addr.arpa:53 {{
  bind {address}
  errors
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {STATE}/coredns.kubeconfig control-plane
    pods insecure
    ttl 1
  }}
}}
.:53 {{
  bind {address}
  ready 127.0.0.1:8181
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


__all__ = ["DNS", "NAME", "PODS", "SANDBOX", "SERVICES", "SOCKET", "write"]
