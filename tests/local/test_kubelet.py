"""Pods as processes: what a container sees and does, and the status of the pod."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import CLAIM, POD
from finetune_operator.core.pod_report import PodReport
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.pod_worker import Node
from finetune_operator.local.store import Store
from finetune_operator.loop.errors import NotFound
from local.conftest import ended, in_state, pod, terminated
from waiting import eventually

PRINT_ENVIRONMENT = "import json, os, sys; print(json.dumps(dict(os.environ))); print(sys.argv[1:])"


def logged(node: Node, found: dict[str, Any]) -> str:
    return node.log_path(found["metadata"]["uid"]).read_text()


@pytest.mark.usefixtures("kubelet")
@pytest.mark.parametrize(
    ("code", "phase", "reason"), [(0, "Succeeded", "Completed"), (65, "Failed", "Error"), (1, "Failed", "Error")]
)
async def test_exit_codes_are_real(store: Store, code: int, phase: str, reason: str) -> None:
    await store.create(pod("p", "python", "-c", f"raise SystemExit({code})"))
    found = await ended(store, "p")
    assert found["status"]["phase"] == phase
    assert terminated(found)["exitCode"] == code
    assert terminated(found)["reason"] == reason


@pytest.mark.usefixtures("kubelet")
async def test_a_process_that_is_killed_has_the_code_of_its_signal(store: Store) -> None:
    await store.create(pod("p", "python", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert terminated(await ended(store, "p"))["exitCode"] == 137


@pytest.mark.usefixtures("kubelet")
async def test_an_unknown_command_is_reported(store: Store, node: Node) -> None:
    await store.create(pod("p", "no-such-command"))
    found = await ended(store, "p")
    assert terminated(found)["exitCode"] == 127
    assert "no-such-command: " in logged(node, found)


@pytest.mark.usefixtures("kubelet")
async def test_paths_of_the_container_are_paths_of_this_machine(store: Store, node: Node, tmp_path: Path) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "shelf", "namespace": "team"}}
    files = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "files", "namespace": "team"},
        "data": {"a.json": "{}"},
    }
    await store.create(claim)
    await store.create(files)
    volumes = [
        {"name": "shelf", "persistentVolumeClaim": {"claimName": "shelf"}}, {"name": "files", "configMap": {"name": "files"}},
        {"name": "scratch", "emptyDir": {}},
    ]  # fmt: skip
    container = {
        "volumeMounts": [
            {"name": "shelf", "mountPath": "/workspace"}, {"name": "files", "mountPath": "/etc/finetune"},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
        "env": [
            {"name": "IN", "value": "/etc/finetune/a.json"}, {"name": "OUT", "value": "/workspace"}, {"name": "HOME", "value": "/tmp/home"},
            {"name": "MESSAGE", "value": "/dev/termination-log"}, {"name": "PLAIN", "value": "/workspaces are not /workspace"},
        ],
    }  # fmt: skip
    script = textwrap.dedent("""
        import os, pathlib, sys
        assert pathlib.Path(os.environ["IN"]).read_text() == "{}"
        pathlib.Path(os.environ["OUT"], "made").write_text("by the pod")
        pathlib.Path(os.environ["HOME"]).mkdir()
        pathlib.Path(os.environ["MESSAGE"]).write_text("done: " + sys.argv[1] + " " + os.environ["PLAIN"])
    """)
    await store.create(pod("p", "python", "-c", script, "/workspace/x", container=container, volumes=volumes))
    found = await ended(store, "p")
    assert found["status"]["phase"] == "Succeeded", logged(node, found)
    assert (tmp_path / "volumes/team/shelf/made").read_text() == "by the pod"
    assert terminated(found)["message"] == f"done: {tmp_path}/volumes/team/shelf/x /workspaces are not /workspace"
    assert not (tmp_path / "pods" / found["metadata"]["uid"] / "volumes").exists()


@pytest.mark.usefixtures("kubelet")
async def test_a_termination_message_is_cut_where_the_kubelet_cuts_it(store: Store) -> None:
    script = "import os, pathlib; pathlib.Path(os.environ['M']).write_text('ü' * 5000)"
    container = {"env": [{"name": "M", "value": "/dev/termination-log"}]}
    await store.create(pod("p", "python", "-c", script, container=container))
    assert len(terminated(await ended(store, "p"))["message"].encode()) <= 4096


@pytest.mark.usefixtures("kubelet")
async def test_the_environment_is_that_of_the_pod_and_not_that_of_the_user(
    store: Store, node: Node, secrets: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMETHING_OF_THE_USER", "x")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    secrets["hf-token", "HF_TOKEN"] = "hf_secret"
    container = {
        "env": [
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "HF_TOKEN", "optional": True}}},
            {"name": "AWS_KEY", "valueFrom": {"secretKeyRef": {"name": "s3-secret", "key": "AWS_KEY", "optional": True}}},
            {"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['rank']"}}},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
    }
    wanted = pod("p", "python", "-c", PRINT_ENVIRONMENT, container=container)
    wanted["metadata"]["labels"] = {"rank": "3"}
    await store.create(wanted)
    found = await ended(store, "p")
    environment = json.loads(logged(node, found).splitlines()[0])
    assert environment["HF_TOKEN"] == "hf_secret"
    assert (environment["RANK"], environment["ME"]) == ("3", "p")
    assert not {"AWS_KEY", "SOMETHING_OF_THE_USER", "PYTHONPATH"} & set(environment)
    assert "hf_secret" not in "".join(path.read_text() for path in (node.folder / found["metadata"]["uid"]).glob("*.json"))
    assert "hf_secret" not in json.dumps(found)


@pytest.mark.usefixtures("kubelet")
async def test_a_pod_waits_for_the_secret_that_it_must_have(store: Store, secrets: dict[tuple[str, str], str]) -> None:
    container = {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "TOKEN"}}}]}
    await store.create(pod("p", "python", "-c", "pass", container=container))
    waiting = await in_state(store, "p", "waiting")
    assert waiting["reason"] == "CreateContainerConfigError"
    assert 'secret "mine" has no key TOKEN' in waiting["message"]
    secrets["mine", "TOKEN"] = "value"
    assert (await ended(store, "p"))["status"]["phase"] == "Succeeded"


@pytest.mark.usefixtures("kubelet")
async def test_a_pod_waits_for_its_configmap_and_its_claim(store: Store) -> None:
    volumes = [
        {"name": "files", "configMap": {"name": "files"}},
        {"name": "shelf", "persistentVolumeClaim": {"claimName": "shelf"}},
    ]
    await store.create(pod("p", "python", "-c", "pass", volumes=volumes))
    assert 'configmap "files" not found' in (await in_state(store, "p", "waiting"))["message"]
    await store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "namespace": "team"}})
    report = await eventually(lambda: _report(store), lambda report: bool(report.unschedulable))
    assert report.unschedulable == 'persistentvolumeclaim "shelf" not found'
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "shelf", "namespace": "team"}}
    assert "status" not in await store.create(claim), "nothing has bound it"
    assert (await ended(store, "p"))["status"]["phase"] == "Succeeded"
    assert (await store.get(CLAIM, "team", "shelf"))["status"] == {"phase": "Bound"}


@pytest.mark.usefixtures("kubelet")
async def test_a_volume_has_only_the_keys_that_it_lists(store: Store, node: Node) -> None:
    def files(key: str) -> list[dict[str, Any]]:
        return [{"name": "files", "configMap": {"name": "files", "items": [{"key": key, "path": "mine.json"}]}}]

    metadata = {"name": "files", "namespace": "team"}
    await store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a.json": "1", "b.json": "2"}})
    container = {
        "volumeMounts": [{"name": "files", "mountPath": "/etc/finetune"}],
        "env": [{"name": "IN", "value": "/etc/finetune"}, {"name": "MESSAGE", "value": "/dev/termination-log"}],
    }  # fmt: skip
    script = (
        "import os, pathlib; found = {path.name: path.read_text() for path in pathlib.Path(os.environ['IN']).iterdir()};"
        "pathlib.Path(os.environ['MESSAGE']).write_text(str(found))"
    )
    await store.create(pod("p", "python", "-c", script, container=container, volumes=files("b.json")))
    found = await ended(store, "p")
    assert terminated(found)["message"] == "{'mine.json': '2'}", logged(node, found)
    await store.create(pod("q", "python", "-c", script, container=container, volumes=files("c.json")))
    assert (await in_state(store, "q", "waiting"))["message"] == 'configmap "files" has no key c.json'


async def _report(store: Store) -> PodReport:
    return PodReport.parse(await store.get(POD, "team", "p"))


@pytest.mark.usefixtures("kubelet")
async def test_a_pod_that_exceeds_this_machine_is_rejected_immediately(store: Store) -> None:
    for name, requests in (("big", {"memory": "9Gi"}), ("gpus", {"nvidia.com/gpu": "3"})):
        await store.create(pod(name, "python", "-c", "pass", container={"resources": {"requests": requests}}))
        report = PodReport.parse(await ended(store, name))
        assert report.rejected.startswith("OutOf")
        assert "this machine has" in report.rejected_message


@pytest.mark.usefixtures("kubelet")
async def test_gpus_are_given_out_once(store: Store, node: Node) -> None:
    asked = {"resources": {"requests": {"nvidia.com/gpu": "1"}}}
    hold = (
        "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read() or __import__('time').sleep(60)"
    )
    for name in ("a", "b", "c"):
        await store.create(pod(name, "python", "-c", hold, container=asked))
        if name != "c":
            await in_state(store, name, "running")
    found = await eventually(lambda: store.get(POD, "team", "c"), lambda found: bool(PodReport.parse(found).unschedulable))
    assert "1 GPU is requested and 0 free;" in PodReport.parse(found).unschedulable
    await store.delete(POD, "team", "a")
    await in_state(store, "c", "running")

    async def devices(name: str) -> str:
        return logged(node, await store.get(POD, "team", name)).strip()

    assert await eventually(lambda: devices("b")) == "1"
    assert await eventually(lambda: devices("c")) == "0"


SLEEPER = """
import pathlib, signal, sys, time
def stop(*_):
    print("asked to stop", flush=True)
    {reaction}
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""


async def _running(store: Store, node: Node, name: str) -> dict[str, Any]:
    await in_state(store, name, "running")
    found = await store.get(POD, "team", name)

    async def look() -> bool:  # the process may not have opened its log yet
        log = node.log_path(found["metadata"]["uid"])
        return log.exists() and "ready" in log.read_text()

    await eventually(look)
    return found


@pytest.mark.usefixtures("kubelet")
async def test_a_deleted_pod_gets_sigterm_and_its_grace(store: Store, node: Node) -> None:
    await store.create(pod("p", "python", "-c", SLEEPER.format(reaction="sys.exit(143)")))
    found = await _running(store, node, "p")
    await store.delete(POD, "team", "p")
    await _gone(store, "p")
    assert "asked to stop" in logged(node, found)


@pytest.mark.usefixtures("kubelet")
async def test_a_pod_that_does_not_listen_is_killed_after_its_grace(store: Store, node: Node) -> None:
    wanted = pod("p", "python", "-c", SLEEPER.format(reaction="pass"), terminationGracePeriodSeconds=1)
    await store.create(wanted)
    found = await _running(store, node, "p")
    record = json.loads((node.folder / found["metadata"]["uid"] / "started.json").read_text())
    await store.delete(POD, "team", "p")
    await _gone(store, "p")
    await eventually(lambda: _dead(record["pid"]))


@pytest.mark.usefixtures("kubelet")
async def test_what_a_process_has_started_ends_with_it(store: Store, node: Node) -> None:
    script = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print('ready', p.pid, flush=True); time.sleep(60)"
    )
    await store.create(pod("p", "python", "-c", script))
    found = await _running(store, node, "p")
    child = int(logged(node, found).split()[1])
    await store.delete(POD, "team", "p")
    await _gone(store, "p")

    await eventually(lambda: _dead(child))


async def _dead(pid: int) -> bool:
    """Whether a process has ended, collected by its parent or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def _gone(store: Store, name: str) -> None:
    async def look() -> bool:
        try:
            await store.get(POD, "team", name)
        except NotFound:
            return True
        return False

    await eventually(look)


async def test_a_stopped_runner_stops_its_pods_and_they_report_it(store: Store, node: Node) -> None:
    async with ProcessKubelet(node).running():
        await store.create(pod("p", "python", "-c", SLEEPER.format(reaction="sys.exit(143)")))
        await _running(store, node, "p")
    found = await store.get(POD, "team", "p")
    assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "Shutdown")
    report = PodReport.parse(found)
    assert report.disrupted
    assert report.termination is not None
    assert report.termination.exit_code == 143


RUNNER = """
import asyncio, pathlib, sys
from finetune_operator.core.settings import Machine
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.machine import Capacity
from finetune_operator.local.pod_worker import Node
from finetune_operator.local.store import Store
from finetune_operator.local.volumes import Volumes

async def main(folder):
    store = Store(folder / "store.db")
    node = Node(store, folder / "pods", Volumes(store, folder / "volumes"), Capacity(Machine(2, 2, 8 << 30)), lambda *_: None)
    async with ProcessKubelet(node).running():
        await asyncio.sleep(60)

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


async def test_after_kill_9_of_the_runner_a_process_is_found_again_and_not_started_twice(
    store: Store, node: Node, tmp_path: Path
) -> None:
    script = "import time; print('ready', flush=True); time.sleep(3); open({path!r}, 'a').write('once ')"
    await store.create(pod("p", "python", "-c", script.format(path=str(tmp_path / "done"))))
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)])
    try:
        await _running(store, node, "p")
    finally:
        runner.kill()
        runner.wait()
    async with ProcessKubelet(node).running():
        found = await ended(store, "p")
    assert found["status"]["phase"] == "Succeeded"
    assert terminated(found)["exitCode"] == 0
    assert (tmp_path / "done").read_text() == "once "


async def test_an_end_that_nobody_saw_while_the_runner_was_dead_is_still_known(store: Store, node: Node, tmp_path: Path) -> None:
    await store.create(pod("p", "python", "-c", "import time; print('ready', flush=True); time.sleep(1); raise SystemExit(75)"))
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)])
    try:
        found = await _running(store, node, "p")
    finally:
        runner.kill()
        runner.wait()
    exited = node.folder / found["metadata"]["uid"] / "exit.json"

    async def over() -> bool:
        return exited.exists()

    await eventually(over)
    async with ProcessKubelet(node).running():
        assert terminated(await ended(store, "p"))["exitCode"] == 75


async def test_a_shim_that_was_killed_takes_its_process_with_it_and_the_end_is_unknown(store: Store, node: Node) -> None:
    async with ProcessKubelet(node).running():
        await store.create(pod("p", "python", "-c", "import time; print('ready', flush=True); time.sleep(60)"))
        found = await _running(store, node, "p")
        record = json.loads((node.folder / found["metadata"]["uid"] / "started.json").read_text())
        os.kill(record["shim"], signal.SIGKILL)
        end = terminated(await ended(store, "p"))
    assert (end["exitCode"], end["reason"]) == (137, "ContainerStatusUnknown")
    await eventually(lambda: _dead(record["pid"]))


async def test_a_kubelet_of_a_named_node_runs_only_what_is_bound_to_it(store: Store, node: Node) -> None:
    async with ProcessKubelet(node, name="this").running():
        await store.create(pod("elsewhere", "python", "-c", "pass", nodeName="that"))
        await store.create(pod("here", "python", "-c", "pass", nodeName="this"))
        await ended(store, "here")
        await asyncio.sleep(0.2)
        assert not (await store.get(POD, "team", "elsewhere")).get("status", {}).get("containerStatuses")
