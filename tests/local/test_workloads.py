"""Jobs and TrainJobs of local mode: their pods, their status, in the words of the real controllers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from finetune_operator.api.kinds import JOB, POD, TRAINJOB
from finetune_operator.core.observation import ChildState, child_state
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.pod_worker import Node
from finetune_operator.local.store import Store
from finetune_operator.local.workload_controller import WorkloadController
from finetune_operator.local.workloads import job_step, trainjob_step
from local.conftest import pod
from waiting import eventually

NOW = "2026-11-21T12:00:00Z"


def job(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"finetunerun.io/run": "demo"}}, "spec": pod("x", "python", "-c", "pass")["spec"]}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "demo", "namespace": "team", "uid": "u"},
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }  # fmt: skip


def trainjob(script: str, nodes: int = 2, **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"finetunerun.io/run": "demo"}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "node"}]},
    }
    runtime = {"template": {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": template}}}]}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "train", "namespace": "team", "uid": "u"},
        "spec": {
            "runtimeRef": {"name": "training-hub"},
            "trainer": {"numNodes": nodes, "numProcPerNode": 1, "command": ["python", "-c", script], "env": [{"name": "MINE", "value": "x"}]},
            "runtimePatches": [{"manager": "finetunerun.io/operator", "trainingRuntimeSpec": runtime}], **spec,
        },
    }  # fmt: skip


def with_phase(made: dict[str, Any], phase: str, **metadata: Any) -> dict[str, Any]:
    return {**made, "metadata": {**made["metadata"], **metadata}, "status": {"phase": phase}}


def held(workload: dict[str, Any], step: Any) -> dict[str, Any]:
    """The workload after a step."""
    return {**workload, "status": {**(workload.get("status") or {}), **(step.status or {})}}


def test_a_job_has_one_pod_that_is_its_own() -> None:
    (made,) = job_step(job(), [], NOW).create
    assert made["metadata"]["labels"] == {"finetunerun.io/run": "demo", "batch.kubernetes.io/job-name": "demo"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert job_step(job(), [], NOW).create == (made,)


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("Pending", ChildState.ACTIVE),
        ("Running", ChildState.ACTIVE),
        ("Succeeded", ChildState.SUCCEEDED),
        ("Failed", ChildState.FAILED),
    ],
)
def test_a_job_ends_as_its_pod_does(phase: str, state: ChildState) -> None:
    (made,) = job_step(job(), [], NOW).create
    step = job_step(job(), [with_phase(made, phase)], NOW)
    assert child_state(held(job(), step)) is state
    assert not step.create


def test_a_job_that_has_ended_stays_as_it_is() -> None:
    (made,) = job_step(job(), [], NOW).create
    done = held(job(), job_step(job(), [with_phase(made, "Succeeded")], NOW))
    assert job_step(done, [], "later").status is None
    assert job_step(done, [], "later").create == ()


def test_a_pod_that_was_taken_away_fails_its_job() -> None:
    (made,) = job_step(job(), [], NOW).create
    running = held(job(), job_step(job(), [with_phase(made, "Running")], NOW))
    assert child_state(held(running, job_step(running, [], NOW))) is ChildState.FAILED
    leaving = with_phase(made, "Running", deletionTimestamp=NOW)
    assert child_state(held(running, job_step(running, [leaving], NOW))) is ChildState.FAILED


def test_a_suspended_job_deletes_its_pod_and_creates_another_when_it_is_resumed() -> None:
    (made,) = job_step(job(), [], NOW).create
    running = held(job(), job_step(job(), [with_phase(made, "Running")], NOW))
    asleep = {**running, "spec": {**running["spec"], "suspend": True}}
    step = job_step(asleep, [with_phase(made, "Running")], NOW)
    assert step.delete == (made["metadata"]["name"],)
    asleep = held(asleep, job_step(asleep, [], NOW))
    assert child_state(asleep) is ChildState.SUSPENDED
    awake = {**asleep, "spec": {**asleep["spec"], "suspend": False}}
    assert job_step(awake, [], NOW).create == (made,)
    resumed = held(awake, job_step(awake, [with_phase(made, "Running")], NOW))
    assert child_state(resumed) is ChildState.ACTIVE
    assert {"type": "Suspended", "status": "False"}.items() <= resumed["status"]["conditions"][0].items()


def test_every_rank_has_the_environment_that_trainer_injects() -> None:
    first, second = trainjob_step(trainjob("pass"), [], NOW, 29500).create
    for rank, made in enumerate((first, second)):
        env = {entry["name"]: entry["value"] for entry in made["spec"]["containers"][0]["env"]}
        assert env == {
            "MINE": "x", "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": "29500", "FINETUNE_METRICS_PORT": "",
        }  # fmt: skip
        assert made["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == str(rank)
        assert made["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"] == "train"
        assert made["metadata"]["labels"]["finetunerun.io/run"] == "demo"
        assert made["spec"]["terminationGracePeriodSeconds"] == 5


def test_a_trainjob_is_complete_when_all_ranks_are_and_failed_when_one_is() -> None:
    wanted = trainjob("pass")
    first, second = trainjob_step(wanted, [], NOW, 1).create
    running = held(wanted, trainjob_step(wanted, [with_phase(first, "Running"), with_phase(second, "Running")], NOW, 1))
    assert running["status"]["jobsStatus"] == [
        {"name": "node", "active": 1, "ready": 1, "succeeded": 0, "failed": 0, "suspended": 0}
    ]  # fmt: skip
    half = trainjob_step(running, [with_phase(first, "Succeeded"), with_phase(second, "Running")], NOW, 1)
    assert child_state(held(running, half)) is ChildState.ACTIVE
    both = trainjob_step(running, [with_phase(first, "Succeeded"), with_phase(second, "Succeeded")], NOW, 1)
    assert child_state(held(running, both)) is ChildState.SUCCEEDED
    pods = [with_phase(first, "Failed"), with_phase(second, "Running")]
    failed = held(running, trainjob_step(running, pods, NOW, 1))
    assert child_state(failed) is ChildState.FAILED
    assert trainjob_step(failed, pods, NOW, 1).delete == (second["metadata"]["name"],)


@pytest.fixture
async def machine(store: Store, node: Node) -> AsyncIterator[Store]:
    """Kubelet and controllers at work."""
    async with ProcessKubelet(node).running(), WorkloadController(store).running():
        yield store


async def outcome(store: Store, kind: Any, name: str) -> ChildState:
    found = await eventually(
        lambda: store.get(kind, "team", name), lambda found: child_state(found) in (ChildState.SUCCEEDED, ChildState.FAILED)
    )
    return child_state(found)


MEET = """
import os, socket, sys
rank, address = int(os.environ["PET_NODE_RANK"]), (os.environ["PET_MASTER_ADDR"], int(os.environ["PET_MASTER_PORT"]))
if rank == 0:
    with socket.create_server(address) as server:
        peer, _ = server.accept()
        assert peer.recv(16) == b"rank 1 of 2"
        peer.sendall(b"hello")
else:
    import time
    for _ in range(200):
        try:
            peer = socket.create_connection(address)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    peer.sendall(f"rank 1 of {os.environ['PET_NNODES']}".encode())
    assert peer.recv(16) == b"hello"
"""


async def test_the_two_processes_of_a_trainjob_find_each_other(machine: Store) -> None:
    await machine.create(trainjob(MEET))
    assert await outcome(machine, TRAINJOB, "train") is ChildState.SUCCEEDED


async def test_the_rank_that_is_left_alone_is_stopped(machine: Store) -> None:
    script = "import os, sys, time\nif os.environ['PET_NODE_RANK'] == '1': sys.exit(1)\ntime.sleep(60)"
    await machine.create(trainjob(script))
    assert await outcome(machine, TRAINJOB, "train") is ChildState.FAILED

    async def phases() -> list[str]:
        page = await machine.list(POD, "team")
        return sorted((found.get("status") or {}).get("phase", "") for found in page.items)

    assert await eventually(phases, lambda found: found == ["Failed"])


async def test_a_job_runs_to_its_end(machine: Store) -> None:
    await machine.create(job())
    assert await outcome(machine, JOB, "demo") is ChildState.SUCCEEDED
    found = await machine.get(JOB, "team", "demo")
    assert found["status"]["succeeded"] == 1
    assert found["status"]["completionTime"]
