"""The resources of this machine, CPUs, memory and GPUs, and their allocation to pods."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_operator.core.manifests.pod import GPU
from finetune_operator.core.quantities import amount, counted, readable
from finetune_operator.core.settings import Machine
from finetune_operator.loop.cluster import Object


def inspect_machine() -> Machine:
    """Return the resources: memory from the kernel, GPUs from ``nvidia-smi``, which avoids importing PyTorch."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(gpus=_count_gpus(), cpus=os.cpu_count() or 1, memory_bytes=memory)


def _count_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if tool is None or visible == "":
        return 0
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = sum(1 for line in listing.stdout.splitlines() if line.startswith("GPU "))
    return found if visible is None else min(found, len(visible.split(",")))


@dataclass(frozen=True)
class Admission:
    """Whether a pod may start.

    Attributes:
        rejection: why the pod can never run here, as the kubelet reports it; empty if it can.
        reason: the reason of the rejection.
        pending: why the pod must wait, as the scheduler reports it; empty if it need not.
    """

    rejection: str = ""
    reason: str = ""
    pending: str = ""


@dataclass
class Capacity:
    """Allocates GPUs and checks memory. CPUs are shared."""

    machine: Machine
    _gpus: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def admit(self, uid: str, pod: Object) -> Admission:
        """Allocate what a pod requests, or return why that is not possible."""
        requested = requests(pod)
        memory, gpus = requested.get("memory", 0.0), int(requested.get(GPU, 0))
        if memory > self.machine.memory_bytes:
            message = f"The stage requests {readable(memory)} of memory; this machine has {readable(self.machine.memory_bytes)}."
            return Admission(message, "OutOfmemory")
        if gpus > self.machine.gpus:
            return Admission(f"The stage requests {counted(gpus, 'GPU')}; this machine has {self.machine.gpus}.", f"OutOf{GPU}")
        free = [index for index in range(self.machine.gpus) if not any(index in held for held in self._gpus.values())]
        if uid not in self._gpus and gpus > len(free):
            return Admission(
                pending=f"{counted(gpus, 'GPU is', 'GPUs are')} requested and {len(free)} free; another stage uses the others."
            )
        self._gpus.setdefault(uid, tuple(free[:gpus]))
        return Admission()

    def release(self, uid: str) -> None:
        """Release the resources of a pod."""
        self._gpus.pop(uid, None)

    def devices(self, uid: str) -> dict[str, str]:
        """Return the environment variable that limits a process to its GPUs."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self._gpus.get(uid, ())))}


def requests(pod: Object) -> dict[str, float]:
    """Return the sum of the requests of a pod's containers, by resource."""
    total: dict[str, float] = {}
    for container in pod["spec"].get("containers") or ():
        requested: Mapping[str, str] = (container.get("resources") or {}).get("requests") or {}
        for name, quantity in requested.items():
            total[name] = total.get(name, 0.0) + amount(quantity)
    return total
