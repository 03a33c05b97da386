"""What a real kubelet does with pods like ours: users, volumes, names, images, logs, ends. And that nothing of a node stays."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from controlplane.api import Api, RefusedError, eventually
from controlplane.binaries import build as build_control_plane
from controlplane.cluster import ControlPlane
from controlplane.programs import KUBECTL
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.manifests.volumes import mounts as stage_mounts
from finetune_operator.kube.client import ApiServer
from node.cluster import NodeCluster
from node.configuration import SANDBOX
from node.volumes import CLASS
from unit.core.passes import go, run_of
from world import World

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(240)
CONFINED = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def pod(namespace: str, name: str, script: str, *, user: int = 1000660000, claim: str | None = None, **more: Any) -> Object:
    """A pod that passes the restricted standard and runs a script of BusyBox."""
    container: Object = {"name": "main", "image": SANDBOX, "command": ["sh", "-c", script], "securityContext": CONFINED}
    spec: Object = {"containers": [container], "restartPolicy": "Never", "securityContext": {"runAsUser": user}}
    spec |= {"terminationGracePeriodSeconds": 1, "enableServiceLinks": False}
    if claim is not None:
        spec["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
        container["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    container |= more.pop("container", {})
    spec["securityContext"] |= more.pop("security", {})
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name, **more.pop("labels", {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **more}}


def claim(namespace: str, name: str) -> Object:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "50Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def look(api: Api, manifest: Object) -> Object:
    """The object as it is now."""
    metadata = manifest["metadata"]
    return api.get(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata["namespace"])


def ended(api: Api, manifest: Object, phase: str = "Succeeded", seconds: float = 60) -> Object:
    """The status of a pod at its end."""
    eventually(lambda: look(api, manifest)["status"].get("phase") in ("Succeeded", "Failed"), "the pod has ended", seconds)
    status: Object = look(api, manifest)["status"]
    assert status["phase"] == phase, status
    return status


def log(api: Api, manifest: Object, **query: str) -> str:
    metadata = manifest["metadata"]
    return str(api.call("GET", f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log", **query)["text"])


def test_pods_of_any_user_share_a_volume_and_find_each_other(api: Api, restricted_namespace: str) -> None:
    names = {"clusterIP": "None", "selector": {"group": "both"}, "publishNotReadyAddresses": True}
    metadata = {"name": "both", "namespace": restricted_namespace}
    api.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": names})
    api.create(claim(restricted_namespace, "shared"))
    meet = (
        "umask 0002; id -u; touch /shared/$HOSTNAME.here; "
        "until test -e /shared/first.here -a -e /shared/second.here; do sleep 0.1; done; echo more >> /shared/both; "
        "until nslookup -type=a $PEER.both.$NAMESPACE.svc.cluster.local | cat | grep -q 10.244; do sleep 0.1; done; echo met"
    )
    pods = []
    for name, peer, user in (("first", "second", 1000660000), ("second", "first", 1000770000)):
        environment = [{"name": "PEER", "value": peer}, {"name": "NAMESPACE", "value": restricted_namespace},
                       {"name": "HOSTNAME", "value": name}]  # fmt: skip
        pods.append(
            pod(
                restricted_namespace, name, meet, user=user, claim="shared", labels={"group": "both"},
                hostname=name, subdomain="both", container={"env": environment},
            )
        )  # fmt: skip
        api.create(pods[-1])
    for one, user in zip(pods, ("1000660000", "1000770000"), strict=True):
        ended(api, one)
        assert log(api, one).split() == [user, "met"]


def test_a_volume_obeys_the_group_of_a_pod_and_comes_back_empty(api: Api, own_node: NodeCluster, namespace: str) -> None:
    wanted, writer = claim(namespace, "data"), "echo kept > /shared/file; stat -c '%a %g' /shared"
    api.create(wanted)
    one = pod(namespace, "writer", writer, claim="data", security={"runAsGroup": 1000660001, "fsGroup": 1000770000})
    api.create(one)
    ended(api, one)
    assert log(api, one).split() == ["2775", "1000770000"]
    name = look(api, wanted)["spec"]["volumeName"]
    folder = own_node.folder / "volumes" / name
    assert (folder / "file").read_text() == "kept\n"
    for manifest in (one, wanted):
        api.delete(manifest)
    eventually(lambda: api.get("v1", "PersistentVolume", name)["status"]["phase"] == "Available", "the volume is offered again")
    assert list(folder.iterdir()) == []
    assert folder.stat().st_gid == 0
    assert api.get("v1", "PersistentVolume", name)["spec"]["storageClassName"] == CLASS


def test_a_missing_image_is_reported_soon(api: Api, namespace: str) -> None:
    one = pod(namespace, "missing", "true", container={"image": "registry.example.com/nobody/nothing:1"})
    api.create(one)
    began, waiting = time.monotonic(), {}

    def is_reported() -> bool:
        for status in look(api, one)["status"].get("containerStatuses") or ():
            waiting.update(status["state"].get("waiting") or {})
        # The kubelet retries after its pause: which of the two reasons it then reports is a matter of milliseconds.
        return waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff")

    eventually(is_reported, "the kubelet says that it cannot pull the image")
    assert time.monotonic() - began < 15
    assert "registry.example.com/nobody/nothing:1" in waiting["message"]


async def test_ends_and_logs_are_reported_unchanged(
    api: Api, cluster: ApiServer, control_plane: ControlPlane, namespace: str
) -> None:
    failing = pod(namespace, "failing", "for i in $(seq 200); do echo line $i; done; echo sorry > /dev/termination-log; exit 65")
    hungry = {"resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": "16Mi"}}}
    greedy = pod(namespace, "greedy", "cat /dev/zero | tail", container=hungry)
    for one in (failing, greedy):
        api.create(one)
    (container,) = ended(api, failing, "Failed")["containerStatuses"]
    assert (container["state"]["terminated"]["exitCode"], container["state"]["terminated"]["message"]) == (65, "sorry\n")
    tail = await cluster.pod_log(namespace, "failing", tail_lines=3)
    assert tail == "line 198\nline 199\nline 200\n"
    access = control_plane.access
    assert access is not None
    kubectl = build_control_plane(None).path(KUBECTL)
    command = [str(kubectl), "--kubeconfig", str(access.kubeconfig), "logs", "-n", namespace, "failing", "--tail=3"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == tail
    (container,) = ended(api, greedy, "Failed")["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == "OOMKilled"
    assert container["state"]["terminated"]["exitCode"] == 137


def test_pods_reach_the_api_server_and_have_no_rights_there(api: Api, namespace: str) -> None:
    ask = (
        "token=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token); "
        'echo asked; wget -q -O - --no-check-certificate --header "Authorization: Bearer $token" https://kubernetes.default.svc/$ASK 2>&1'
    )
    pods = [pod(namespace, name, ask, container={"env": [{"name": "ASK", "value": path}]})
            for name, path in (("version", "version"), ("secrets", f"api/v1/namespaces/{namespace}/secrets"))]  # fmt: skip
    for one in pods:
        api.create(one)
    ended(api, pods[0])
    assert '"gitVersion": "v1.34' in log(api, pods[0])
    ended(api, pods[1], "Failed")
    assert "403 Forbidden" in log(api, pods[1])


def test_a_kubelet_that_restarts_finds_its_pods(api: Api, own_node: NodeCluster, namespace: str) -> None:
    one = pod(namespace, "steady", "until test -e /tmp/go; do sleep 0.1; done; echo went on", container={
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}, volumes=[{"name": "tmp", "emptyDir": {}}])  # fmt: skip
    api.create(one)
    eventually(lambda: look(api, one)["status"].get("phase") == "Running", "the pod runs")
    with own_node.locked():
        own_node.restart_kubelet()
    folder = own_node.folder / "kubelet/pods" / look(api, one)["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/tmp"
    (folder / "go").touch()
    (container,) = ended(api, one)["containerStatuses"]
    assert (container["restartCount"], log(api, one)) == (0, "went on\n")


def test_nothing_of_a_node_stays_however_it_ends(machine_for_nodes: None, tmp_path: Path) -> None:
    cluster, binaries = NodeCluster(tmp_path / "apart"), build_control_plane(None)
    try:
        with cluster.locked():
            cluster.up(binaries, None)
            with cluster.api() as api:
                one = pod("default", "held", "sleep 1000")
                api.create(one)
                eventually(lambda: look(api, one)["status"].get("phase") == "Running", "the pod runs", 60)
            assert traces(cluster) == {"interface", "cgroup", "processes"}
            for process in cluster.processes.recorded():
                if process.name == "anchor":
                    process.signal(9)
            eventually(lambda: "processes" not in traces(cluster), "the containers have ended with the node")
            assert cluster.access is None
            cluster.up(binaries, None)
            with cluster.api() as api, pytest.raises(RefusedError, match="not found"):
                look(api, one)
    finally:
        cluster.down()
    assert traces(cluster) == set()
    assert not cluster.folder.exists()


def traces(cluster: NodeCluster) -> set[str]:
    """What there is of a node outside its folder."""
    name = cluster.network.interface
    found = {"interface"} if cluster.network.is_up else set()
    if any(Path("/sys/fs/cgroup").glob(f"**/{name}")) or Path("/sys/fs/cgroup", name).exists():
        found.add("cgroup")
    groups = (path.read_text() for path in Path("/proc").glob("[0-9]*/cgroup") if path.exists())
    if any(name in text for text in groups):
        found.add("processes")
    if str(cluster.state) in Path("/proc/self/mounts").read_text():
        found.add("mounts")
    return found


def test_what_earlier_stages_published_is_read_only_in_the_evaluation(api: Api, restricted_namespace: str) -> None:
    """The mounts of the stage's Job, of parts of one claim in another, as a kubelet makes them."""
    world = World.new()
    go(world)
    run = run_of(world)
    mounts = [one for one in stage_mounts(run, run.stages["evaluation"], PodNeeds()) if one["name"] == "workspace"]
    parts = [one["subPath"] for one in mounts if "subPath" in one]
    assert len(parts) == 3
    api.create(claim(restricted_namespace, "shared"))
    whole = [{"name": "shared", "mountPath": "/workspace"}]
    made = f"umask 002; cd /workspace; mkdir -p cache {' '.join(parts)}; echo measured > {parts[-1]}/model"
    earlier = pod(restricted_namespace, "earlier", made, claim="shared", container={"volumeMounts": whole})
    api.create(earlier)
    ended(api, earlier)
    tries = " ".join((*(f"{part}/x" for part in parts), "cache/x", f"{run.layout.root}/x"))
    script = f"cd /workspace; cat {parts[-1]}/model; for file in {tries}; do (: > $file) 2>/dev/null && echo $file; done; true"
    theirs = [{**one, "name": "shared"} for one in mounts]
    later = pod(restricted_namespace, "later", script, user=1000770000, claim="shared", container={"volumeMounts": theirs})
    api.create(later)
    ended(api, later)
    assert log(api, later).split() == ["measured", "cache/x", f"{run.layout.root}/x"]
