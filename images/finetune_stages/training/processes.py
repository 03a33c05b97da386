"""Process groups of a training: the ``PET_*`` variables that Kubeflow Trainer sets and torchrun reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import PROCESSES_VARIABLE
from finetune_stages.sdk import StageError, quick_imports
from finetune_stages.sdk.gpus import on_gpu, requested_gpus, require_gpus, require_torch_gpus

from .peers import TIMEOUT_VARIABLE, peers_may_be_lost

GPU_FIELD = "training.gpusPerWorker"
_TIMEOUT = timedelta(minutes=30)
"""Default timeout; the other processes wait while rank 0 writes checkpoints."""


@dataclass(frozen=True)
class Processes:
    """Size of the process group, and the ranks of this process.

    Attributes:
        nodes, per_node: number of pods, and of processes in each.
        node_rank: rank of this pod.
        address, port: where rank 0 listens; ``None`` on a single node without these variables.
        local_rank: rank of this process in its pod.
    """

    nodes: int = 1
    per_node: int = 1
    node_rank: int = 0
    address: str | None = None
    port: str | None = None
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Processes:
        """Return the processes from Kubeflow Trainer's variables; a single process if there are none.

        Raises:
            StageError: ``BadTrainingValue``: a variable is not valid for torchrun, or the run has another number of processes.
        """
        nodes = _number(environment, "PET_NNODES", 1, at_least=1)
        node_rank = _number(environment, "PET_NODE_RANK", 0, at_least=0)
        if node_rank >= nodes:
            raise _bad("PET_NODE_RANK", str(node_rank), f"a number below PET_NNODES, which is {nodes}")
        address = environment.get("PET_MASTER_ADDR") or None
        if nodes > 1 and not address:
            raise _bad("PET_MASTER_ADDR", "", f"the host of the first of {nodes} nodes")
        port = environment.get("PET_MASTER_PORT") or None
        if port is not None and not (port.isdecimal() and 0 < int(port) < 65_536):
            raise _bad("PET_MASTER_PORT", port, "a port from 1 to 65535")
        processes = cls(nodes, _per_node(environment), node_rank, address, port)
        _require_all(environment, processes)
        return processes

    @classmethod
    def of_worker(cls, environment: Mapping[str, str]) -> Processes:
        """Return the processes from the variables that torchrun sets for a worker."""
        per_node = int(environment["LOCAL_WORLD_SIZE"])
        return cls(
            int(environment["WORLD_SIZE"]) // per_node, per_node, int(environment["GROUP_RANK"]),
            environment["MASTER_ADDR"], environment["MASTER_PORT"], int(environment["LOCAL_RANK"]),
        )  # fmt: skip

    @property
    def world(self) -> int:
        """Number of all processes."""
        return self.nodes * self.per_node

    @property
    def rank(self) -> int:
        """Rank of this process among all."""
        return self.node_rank * self.per_node + self.local_rank

    def announce(self) -> None:
        """Set the variables that torch, accelerate and transformers read to find their peers.

        A single process gets one GPU: with more, transformers would use ``DataParallel``, which divides the plan's batches again.
        """
        if self.world == 1:
            for variable in self.variables():  # with those of a larger group, libraries would wait for its other processes
                os.environ.pop(variable, None)
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
            return
        os.environ.update(self.variables())

    def variables(self) -> dict[str, str]:
        """Return the variables of this process, named as torchrun names them."""
        return {
            "RANK": str(self.rank), "WORLD_SIZE": str(self.world), "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.per_node), "MASTER_ADDR": self.address or "127.0.0.1", "MASTER_PORT": self.port or "29500",
        }  # fmt: skip

    @contextmanager
    def group(self) -> Iterator[None]:
        """Process group: nccl between GPUs, gloo for tensors in CPU memory.

        Raises:
            StageError: ``ProcessGroupTimeout``: a process did not join, or was lost.
        """
        if self.world == 1:
            yield
            return
        with quick_imports():
            from torch import cuda
            from torch import distributed as dist

        backend = "gloo"
        if on_gpu():
            require_torch_gpus(GPU_FIELD)
            cuda.set_device(self.local_rank)
            backend = "cpu:gloo,cuda:nccl"
        print(f"rank {self.rank} of {self.world} processes: waiting for the others", flush=True)
        with peers_may_be_lost(self.rank, self.world):
            dist.init_process_group(backend, timeout=timeout())
            print(f"rank {self.rank} of {self.world} processes: all have joined", flush=True)
            yield
            dist.destroy_process_group()

    def agree(self, tensors: Iterable[Any]) -> None:
        """Copy rank 0's values into every rank's tensors, in place."""
        if self.world == 1:
            return
        from torch import distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)

    def gather(self, value: object) -> list[object]:
        """Return every rank's ``value``, on every rank."""
        if self.world == 1:
            return [value]
        from torch import distributed as dist

        values: list[object] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def require_devices(processes: Processes) -> None:
    """Check that the requested GPUs can be used, and that each process of this pod has its own.

    Raises:
        StageError: ``GPUUnusable``, ``EngineMissing``, ``BadTrainingValue``.
    """
    number = require_gpus(GPU_FIELD)
    if 0 < number < processes.per_node:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.processesPerWorker: {processes.per_node} processes cannot share {number} {'GPU' if number == 1 else 'GPUs'}; use at most"
            " one process for each GPU.",
        )


def timeout() -> timedelta:
    """Return the timeout of collective operations."""
    text = os.environ.get(TIMEOUT_VARIABLE)
    if not text:
        return _TIMEOUT
    try:
        return timedelta(milliseconds=int(text))
    except (ValueError, OverflowError):
        raise _bad(TIMEOUT_VARIABLE, text, "a number of milliseconds") from None


def _per_node(environment: Mapping[str, str]) -> int:
    text = environment.get("PET_NPROC_PER_NODE") or "1"
    if text in ("auto", "gpu"):
        return max(1, requested_gpus())
    return _number(environment, "PET_NPROC_PER_NODE", 1, at_least=1)


def _require_all(environment: Mapping[str, str], processes: Processes) -> None:
    """Check the number of processes: without it, each pod of a runtime that sets no variables would train a model of its own."""
    requested = _number(environment, PROCESSES_VARIABLE, processes.world, at_least=1)
    if processes.world != requested:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.runtimeRef: the run has {requested} training processes, and the variables of the runtime are for {processes.world}"
            f" (PET_NNODES {processes.nodes}, PET_NPROC_PER_NODE {processes.per_node}); use a runtime with mlPolicy.torch.",
        )


def _number(environment: Mapping[str, str], name: str, default: int, at_least: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) < at_least:
        raise _bad(name, text, f"a whole number of at least {at_least}")
    return int(text)


def _bad(name: str, value: str, expected: str) -> StageError:
    return StageError(reasons.BAD_TRAINING_VALUE, f"environment variable {name}: {value!r} is not valid; set {expected}.")
