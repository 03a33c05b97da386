"""Kubeflow Trainer's variables and the processes that follow from them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from finetune_contract import reasons
from finetune_contract.documents import PROCESSES_VARIABLE
from finetune_stages.sdk import StageError
from finetune_stages.training import processes as module
from finetune_stages.training.processes import TIMEOUT_VARIABLE, Processes, require_devices, timeout

TWO_NODES = {
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "4",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "host-0",
    "PET_MASTER_PORT": "29400",
}


def test_nothing_injected_is_one_process():
    alone = Processes.from_environment({})
    assert (alone.world, alone.rank) == (1, 0)


def test_two_nodes_of_four():
    job = Processes.from_environment(TWO_NODES)
    assert (job.world, job.rank, job.address, job.port) == (8, 4, "host-0", "29400")


def test_a_worker_knows_its_place_from_torchrun():
    worker = Processes.of_worker(
        {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1", "LOCAL_RANK": "3", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    )
    assert (worker.nodes, worker.per_node, worker.rank, worker.world) == (2, 4, 7, 8)


@pytest.mark.parametrize("word", ["auto", "gpu"])
@pytest.mark.parametrize(("found", "expected"), [(0, 1), (8, 8)])
def test_one_process_a_gpu_or_one(monkeypatch, word, found, expected):
    monkeypatch.setattr(module, "requested_gpus", lambda: found)
    assert Processes.from_environment({"PET_NPROC_PER_NODE": word}).per_node == expected


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"PET_NPROC_PER_NODE": "cpu"}, "PET_NPROC_PER_NODE: 'cpu' is not valid"),
        ({"PET_NPROC_PER_NODE": "0"}, "PET_NPROC_PER_NODE: '0' is not valid"),
        ({"PET_NNODES": "1:4"}, "PET_NNODES: '1:4' is not valid"),
        (
            {"PET_NNODES": "2", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "a"},
            "PET_NODE_RANK: '2' is not valid; set a number below",
        ),
        ({"PET_NNODES": "2"}, "PET_MASTER_ADDR: '' is not valid"),
        ({**TWO_NODES, "PET_MASTER_PORT": "abc"}, "PET_MASTER_PORT: 'abc' is not valid; set a port from 1 to 65535"),
        ({**TWO_NODES, "PET_MASTER_PORT": "0"}, "PET_MASTER_PORT: '0' is not valid"),
        ({**TWO_NODES, "PET_MASTER_PORT": "99999"}, "PET_MASTER_PORT: '99999' is not valid"),
    ],
)
def test_values_that_torchrun_would_not_take(environment, named):
    with pytest.raises(StageError, match=f"environment variable {named}") as raised:
        Processes.from_environment(environment)
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE


def test_peers_are_announced_to_the_libraries(monkeypatch):
    written: dict[str, str] = {}
    monkeypatch.setattr(module.os, "environ", written)
    Processes.from_environment({**TWO_NODES, "PET_NPROC_PER_NODE": "1"}).announce()
    assert written == {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "host-0", "MASTER_PORT": "29400",
    }  # fmt: skip


def test_a_process_alone_uses_one_gpu(monkeypatch):
    written = {
        "CUDA_VISIBLE_DEVICES": "3,4",
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }
    monkeypatch.setattr(module.os, "environ", written)
    Processes().announce()
    assert written == {"CUDA_VISIBLE_DEVICES": "3"}


def test_the_time_to_wait_can_be_set(monkeypatch):
    monkeypatch.setenv(TIMEOUT_VARIABLE, "90000")
    assert timeout() == timedelta(seconds=90)
    for text in ("long", "9" * 25):
        monkeypatch.setenv(TIMEOUT_VARIABLE, text)
        with pytest.raises(
            StageError, match=rf"INSTRUCTLAB_NCCL_TIMEOUT_MS: '{text}' is not valid; set a number of milliseconds"
        ):
            timeout()


@pytest.mark.parametrize("requested", ["7", "16"])
def test_another_number_of_processes_than_the_run_has_is_rejected(requested):
    assert Processes.from_environment({**TWO_NODES, PROCESSES_VARIABLE: "8"}).world == 8
    with pytest.raises(
        StageError, match=rf"training.runtimeRef: the run has {requested} training processes, .* are for 8"
    ) as raised:
        Processes.from_environment({**TWO_NODES, PROCESSES_VARIABLE: requested})
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE


def test_pods_of_a_runtime_without_torch_do_not_train_alone():
    with pytest.raises(StageError, match=r"the run has 2 training processes, and the variables of the runtime are for 1 "):
        Processes.from_environment({PROCESSES_VARIABLE: "2"})


def test_every_process_needs_its_own_gpu(monkeypatch):
    monkeypatch.setattr(module, "require_gpus", lambda field: 2)
    require_devices(Processes(per_node=2))
    with pytest.raises(StageError, match=r"training.processesPerWorker: 3 processes cannot share 2 GPUs") as raised:
        require_devices(Processes(per_node=3))
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE
    monkeypatch.setattr(module, "require_gpus", lambda field: 0)
    require_devices(Processes(per_node=3))
