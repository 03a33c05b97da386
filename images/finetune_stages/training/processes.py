"""Process groups of a training: the ``PET_*`` variables that Kubeflow Trainer sets and torchrun reads."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError, quick_imports
from finetune_stages.sdk.fault import Interrupted, causes, first_line

TIMEOUT_VARIABLE = "INSTRUCTLAB_NCCL_TIMEOUT_MS"
"""Environment variable with the timeout of collective operations in milliseconds, named as in Training Hub's SFT backend."""
_TIMEOUT = timedelta(minutes=30)
"""Default timeout; the other processes wait while rank 0 writes checkpoints."""
_LOST = ("connection closed by peer", "connection reset by peer", "timed out", "timeout", "broken pipe", "no route to host")


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
            StageError: ``BadTrainingValue``: a variable is not valid for torchrun.
        """
        nodes = _number(environment, "PET_NNODES", 1, at_least=1)
        node_rank = _number(environment, "PET_NODE_RANK", 0, at_least=0)
        if node_rank >= nodes:
            raise _bad("PET_NODE_RANK", str(node_rank), f"a number below PET_NNODES, which is {nodes}")
        address = environment.get("PET_MASTER_ADDR") or None
        if nodes > 1 and not address:
            raise _bad("PET_MASTER_ADDR", "", f"the host of the first of {nodes} nodes")
        return cls(nodes, _per_node(environment), node_rank, address, environment.get("PET_MASTER_PORT") or None)

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

        A single process gets one GPU: with more, transformers would use ``DataParallel``, which TRL rejects.
        """
        if self.world == 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
            return
        os.environ.update(
            RANK=str(self.rank), WORLD_SIZE=str(self.world), LOCAL_RANK=str(self.local_rank),
            LOCAL_WORLD_SIZE=str(self.per_node), MASTER_ADDR=self.address or "127.0.0.1", MASTER_PORT=self.port or "29500",
        )  # fmt: skip

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
        if cuda.is_available():
            cuda.set_device(self.local_rank)
            backend = "cpu:gloo,cuda:nccl"
        print(f"rank {self.rank} of {self.world} processes: waiting for the others", flush=True)
        with _peers_may_be_lost(self):
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


def timeout() -> timedelta:
    """Return the timeout of collective operations."""
    text = os.environ.get(TIMEOUT_VARIABLE)
    if not text:
        return _TIMEOUT
    try:
        return timedelta(milliseconds=int(text))
    except ValueError:
        raise _bad(TIMEOUT_VARIABLE, text, "a number of milliseconds") from None


@contextmanager
def _peers_may_be_lost(processes: Processes) -> Iterator[None]:
    try:
        yield
    except (StageError, Interrupted, KeyboardInterrupt):
        raise
    except BaseException as error:
        lost = _lost(error)
        if lost is None:
            raise
        why = re.sub(r"^(\[[^]]*\]\s*)+", "", first_line(lost)).split(". ")[0]  # without the location in torch's sources
        raise StageError(
            reasons.PROCESS_GROUP_TIMEOUT,
            f"training: process {processes.rank} of {processes.world} lost another one ({why}); see the log of the process that"
            f" ended first, or if none did, raise {TIMEOUT_VARIABLE} in training.env.",
        ) from error


def _lost(error: BaseException) -> BaseException | None:
    """Return the exception that means a lost peer: torch has classes for its store and NCCL, gloo raises generic ones."""
    from torch import distributed as dist

    for link in causes(error):
        named = isinstance(link, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError))
        if named or (isinstance(link, RuntimeError) and any(words in str(link).lower() for words in _LOST)):
            return link
    return None


def _per_node(environment: Mapping[str, str]) -> int:
    text = environment.get("PET_NPROC_PER_NODE") or "1"
    if text in ("auto", "gpu"):
        return max(1, gpus())
    return _number(environment, "PET_NPROC_PER_NODE", 1, at_least=1)


def _number(environment: Mapping[str, str], name: str, default: int, at_least: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) < at_least:
        raise _bad(name, text, f"a whole number of at least {at_least}")
    return int(text)


def _bad(name: str, value: str, expected: str) -> StageError:
    return StageError(reasons.BAD_TRAINING_VALUE, f"environment variable {name}: {value!r} is not valid; set {expected}.")


def gpus(load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> int:
    """Return the number of GPUs of this process from NVIDIA's driver, because importing torch takes seconds."""
    driver, count = _driver(load), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def flash_attention_possible(load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> bool:
    """Return whether the first GPU has an architecture that flash-attn 2 supports: compute capability 8.x or 9.0."""
    driver, major, minor = _driver(load), ctypes.c_int(0), ctypes.c_int(0)
    if (
        driver is None
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, 0)
    ):
        return False
    return major.value == 8 or (major.value, minor.value) == (9, 0)


_MAJOR, _MINOR = 75, 76
"""CUDA's numbers of the attributes with the compute capability (``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR``)."""


def _driver(load: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL | None:
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
