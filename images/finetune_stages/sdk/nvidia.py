"""NVIDIA's driver and its GPUs, read with ctypes. Standard library only, because importing torch takes seconds.

Run as a program it prints the driver as JSON. Programs start it as a process of its own: the driver reads ``CUDA_VISIBLE_DEVICES`` when it
is initialized, and a process can do that only once.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

_LIBRARY = "libcuda.so.1"
_MANAGEMENT = "libnvidia-ml.so.1"
_MODULE = Path("/proc/driver/nvidia/version")
_MAJOR, _MINOR = 75, 76
"""``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR`` of the driver's API."""
_SECONDS = 60
"""Limit for the driver's initialization. A broken GPU can block it for minutes."""

Load = Callable[[str], Any]
Version = tuple[int, int]


class GPU(NamedTuple):
    """One GPU: name, memory in bytes, compute capability."""

    name: str
    memory: int
    capability: Version


class Driver(NamedTuple):
    """The driver that this process sees.

    Attributes:
        release: such as ``580.95.05``; ``None`` if unknown.
        cuda: the newest CUDA version that it supports; ``None`` if there is no driver.
        gpus: the GPUs that this process may use.
        error: why it cannot be used, in words; ``None`` if it can.
    """

    release: str | None = None
    cuda: Version | None = None
    gpus: tuple[GPU, ...] = ()
    error: str | None = None


def driver(load: Load = ctypes.CDLL) -> Driver:
    """Return the driver as a new process sees it."""
    try:
        load(_LIBRARY)
    except OSError:
        return Driver(error=f"there is no NVIDIA driver ({_LIBRARY})")
    spec = find_spec(__name__)
    source = getattr(spec.loader, "get_source")(__name__) if spec else ""  # noqa: B009 - only source loaders have it
    command = [sys.executable, "-I", "-S", "-c", source]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603 - this module
        return _decode(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Driver(error=f"the NVIDIA driver did not initialize within {_SECONDS} seconds")
    except (IndexError, ValueError):
        return Driver(error=f"the NVIDIA driver ended the process that initialized it (exit code {done.returncode})")


def read_driver(load: Load = ctypes.CDLL, module: Path = _MODULE) -> Driver:
    """Return the driver as this process sees it, and initialize it in this process."""
    try:
        cuda = load(_LIBRARY)
    except OSError:
        return Driver(error=f"there is no NVIDIA driver ({_LIBRARY})")
    release, supported = _release(load, module), _supported(cuda)
    code = cuda.cuInit(0)
    if code != 0:
        return Driver(release, supported, (), f"the NVIDIA driver cannot be initialized ({_error(cuda, code)})")
    count = ctypes.c_int(0)
    code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code != 0:
        return Driver(release, supported, (), f"the NVIDIA driver cannot count its GPUs ({_error(cuda, code)})")
    return Driver(release, supported, tuple(_gpu(cuda, ordinal) for ordinal in range(count.value)))


def version_text(version: Version | None) -> str:
    """Return a version as text: ``13.2``."""
    return "unknown" if version is None else ".".join(map(str, version))


def _decode(data: list[Any]) -> Driver:
    release, cuda, gpus, error = data
    found = tuple(GPU(name, memory, (capability[0], capability[1])) for name, memory, capability in gpus)
    return Driver(release, None if cuda is None else (cuda[0], cuda[1]), found, error)


def _supported(cuda: Any) -> Version | None:
    number = ctypes.c_int(0)
    if cuda.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value <= 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def _gpu(cuda: Any, ordinal: int) -> GPU:
    device, memory, name = ctypes.c_int(0), ctypes.c_size_t(0), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), ordinal)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    parts = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int(0)
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        parts.append(number.value)
    return GPU(name.value.decode(errors="replace"), memory.value, (parts[0], parts[1]))


def _error(cuda: Any, code: int) -> str:
    """Return the name of a code, such as ``CUDA_ERROR_SYSTEM_NOT_READY``."""
    name = ctypes.c_char_p()
    known = cuda.cuGetErrorName(code, ctypes.byref(name)) == 0 and name.value
    return name.value.decode() if known and name.value else f"CUDA error {code}"


def _release(load: Load, module: Path) -> str | None:
    """Return the version of the driver: of the kernel module, or of its management library where /proc is hidden."""
    try:
        found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", module.read_text(encoding="utf-8"))
        if found:
            return found[0]
    except OSError:  # not mounted into this container
        pass
    try:
        management = load(_MANAGEMENT)
    except OSError:
        return None
    text = ctypes.create_string_buffer(96)
    if management.nvmlInit_v2() != 0 or management.nvmlSystemGetDriverVersion(text, len(text)) != 0:
        return None
    return text.value.decode() or None


if __name__ == "__main__":
    print(json.dumps(read_driver()))
