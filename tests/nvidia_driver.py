"""A driver of NVIDIA that has the GPUs that a test describes, as shared libraries for the real loader: no machine of the tests has GPUs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

_CUDA = """
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = SUPPORTED; return 0; }
int cuDeviceGetCount(int *count) {
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  *count = visible && !*visible ? 0 : COUNT;
  return 0;
}
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, NAME, length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 80UL << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? MAJOR : MINOR; return 0; }
int cuGetErrorName(int code, const char **name) {
  *name = code == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : NULL;
  return *name ? 0 : 1;
}
"""
_MANAGEMENT = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { strncpy(version, RELEASE, length); return 0; }
"""


def driver_library(
    folder: Path, *, gpus: int = 1, cuda: int = 13020, init: int = 0, name: str = "NVIDIA H200", capability: tuple[int, int] = (9, 0),
    release: str = "590.44.01",
) -> Path:  # fmt: skip
    """Compile ``libcuda.so.1`` and ``libnvidia-ml.so.1`` into ``folder``, for ``LD_LIBRARY_PATH``, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _compile(
        folder / "libcuda.so.1", _CUDA,
        {"INIT": init, "SUPPORTED": cuda, "COUNT": gpus, "NAME": json.dumps(name), "MAJOR": capability[0], "MINOR": capability[1]},
    )  # fmt: skip
    _compile(folder / "libnvidia-ml.so.1", _MANAGEMENT, {"RELEASE": json.dumps(release)})
    return folder


def machine_with_gpus(folder: Path, built_for: str = "13.2", **driver: Any) -> dict[str, str]:
    """Return environment variables for a program that sees such a driver, and a torch that is built for a CUDA version.

    The torch has only its version file, so that a program that imports it fails: the installed one may be built for CPUs.
    """
    torch = folder / "packages" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise ImportError('torch is imported before the GPUs are checked')\n")
    (torch / "version.py").write_text(f"cuda = '{built_for}'\n")
    return {"LD_LIBRARY_PATH": str(driver_library(folder / "driver", **driver)), "PYTHONPATH": str(torch.parent)}


def _compile(target: Path, source: str, defined: dict[str, object]) -> None:
    defines = [f"-D{name}={value}" for name, value in defined.items()]
    command = ["cc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", str(target), *defines]
    subprocess.run(command, input=source, text=True, check=True)
