"""What this machine has: processors, memory, GPUs; and who uses how much of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_operator.core.quantities import amount, readable
from finetune_operator.core.settings import Machine
from finetune_operator.loop.cluster import Object

GPU = "nvidia.com/gpu"


def inspect_machine() -> Machine:
    """Look at the machine: memory from the kernel, GPUs from NVIDIA's own tool (no library of 3 GB is imported for that)."""
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
    """Whether a pod may start: ``rejection`` and ``wait`` say why not, as the kubelet and the scheduler do."""

    rejection: str = ""
    reason: str = ""
    wait: str = ""


@dataclass
class Capacity:
    """Who holds what. Processors are shared; memory and GPUs are not."""

    machine: Machine
    _gpus: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def admit(self, uid: str, pod: Object) -> Admission:
        """Take what a pod requests, or say why that cannot be."""
        requested = requests(pod)
        memory, gpus = requested.get("memory", 0.0), int(requested.get(GPU, 0))
        if memory > self.machine.memory_bytes:
            message = f"The stage requests {readable(memory)} of memory; this machine has {readable(self.machine.memory_bytes)}."
            return Admission(message, "OutOfmemory")
        if gpus > self.machine.gpus:
            return Admission(f"The stage requests {gpus} GPUs; this machine has {self.machine.gpus}.", f"OutOf{GPU}")
        free = [index for index in range(self.machine.gpus) if not any(index in held for held in self._gpus.values())]
        if uid not in self._gpus and gpus > len(free):
            return Admission(wait=f"{gpus} GPUs are wanted, {len(free)} are free: another stage uses them.")
        self._gpus.setdefault(uid, tuple(free[:gpus]))
        return Admission()

    def release(self, uid: str) -> None:
        """Give back what a pod held."""
        self._gpus.pop(uid, None)

    def devices(self, uid: str) -> dict[str, str]:
        """The variable by which a process sees its GPUs and no others."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self._gpus.get(uid, ())))}


def requests(pod: Object) -> dict[str, float]:
    """What the containers of a pod request, as numbers."""
    total: dict[str, float] = {}
    for container in pod["spec"].get("containers") or ():
        requests_: Mapping[str, str] = (container.get("resources") or {}).get("requests") or {}
        for name, quantity in requests_.items():
            total[name] = total.get(name, 0.0) + amount(quantity)
    return total
