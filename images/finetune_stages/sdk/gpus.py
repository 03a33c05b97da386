"""Choice between GPUs and CPUs: it follows from what the pod requests, never from what happens to work.

A program that requests GPUs computes on them or fails; a program that requests none computes on CPUs even where it could see a GPU.
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.documents import GPUS_VARIABLE, IMAGE_VARIABLE

from .fault import StageError
from .nvidia import Driver, Version, driver, version_text

OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""Oldest driver branch for each major version of CUDA (NVIDIA, CUDA Compatibility, minor version compatibility)."""
OLDEST_GPU: dict[int, Version] = {11: (3, 5), 12: (5, 0), 13: (7, 5)}
"""Lowest compute capability that each major version of CUDA compiles for."""
PLACEHOLDERS = "lib/cuda_placeholders.txt"
"""File in torch's folder that images for CPUs have: NVIDIA's libraries are placeholders there."""


def requested_gpus() -> int:
    """Return the number of GPUs that the pod requests; if it is not set, the number of GPUs that the driver has.

    Raises:
        StageError: ``BadDocument``: the variable is not a number.
    """
    text = os.environ.get(GPUS_VARIABLE)
    if not text:
        return _visible()
    if not text.isdecimal():
        raise StageError(
            reasons.BAD_DOCUMENT, f"environment variable {GPUS_VARIABLE}: {text!r} is not valid; set a number of GPUs."
        )
    return int(text)


def on_gpu() -> bool:
    """Return whether this process computes on GPUs."""
    return requested_gpus() > 0


def require_gpus(field: str, found: Driver | None = None) -> int:
    """Check that the requested GPUs can be used, without importing torch, and return their number.

    With none requested, the GPUs are hidden from all libraries.

    Args:
        field: the field of the run that requests them, for messages.
        found: the driver; by default it is read.

    Raises:
        StageError: ``GPUUnusable``, or ``EngineMissing``: the image was built for CPUs.
    """
    number = requested_gpus()
    os.environ[GPUS_VARIABLE] = str(number)  # for this program's workers
    if number == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return 0
    built = require_cuda_build(field, number)
    if built is None:
        return number
    found = driver() if found is None else found
    problem, remedy = _problem(found, built, number)
    if problem:
        raise _unusable(field, number, problem, found, built, remedy=remedy)
    return number


def require_cuda_build(field: str, number: int) -> Version | None:
    """Return the CUDA version that the installed torch is built for; ``None`` without torch, which the engine's own check names.

    Neither a GPU nor a driver is needed.

    Args:
        field: the field of the run that requests GPUs, for messages.
        number: how many it requests, at least 1.

    Raises:
        StageError: ``EngineMissing``: torch is built for CPUs.
    """
    if torch_folder() is None:
        return None
    built = torch_cuda()
    if built is None:
        raise StageError(reasons.ENGINE_MISSING, _built_for_cpus(field, number))
    return built


def require_torch_gpus(field: str) -> None:
    """Check that torch can use the GPUs that the driver has; it imports torch.

    Raises:
        StageError: ``GPUUnusable``.
    """
    number = requested_gpus()
    if number == 0:
        return
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise _unusable(field, number, f"PyTorch cannot use them ({why})", driver(), torch_cuda()) from error


def torch_folder() -> Path | None:
    """Return the folder of the installed torch, which is not imported; ``None`` without it."""
    spec = find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def torch_cuda(folder: Path | None = None) -> Version | None:
    """Return the CUDA version that the installed torch is built for; ``None`` for CPUs."""
    folder = folder or torch_folder()
    if folder is None or (folder / PLACEHOLDERS).exists():
        return None
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=\n]*= *'(\d+)\.(\d+)", text, flags=re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


@cache
def _visible() -> int:
    return len(driver().gpus)


def _problem(found: Driver, built: Version, number: int) -> tuple[str, str]:
    """Return what is wrong with the driver and what to do about it; empty strings if nothing is."""
    if found.error and found.cuda is None:
        return found.error, "check that the GPU operator runs on the node and that the pod's runtime class provides the driver"
    if found.cuda is not None and found.cuda[0] < built[0]:  # the driver may also fail to initialize for this reason
        oldest = OLDEST_DRIVER.get(built[0])
        needs = f"a driver for CUDA {built[0]}" + (f", which is {oldest} or newer" if oldest else "")
        return f"PyTorch needs {needs}", "update the driver of the node, or set an image for an older CUDA version"
    if found.error:
        return found.error, "check the GPUs of the node with nvidia-smi"
    if len(found.gpus) < number:
        return f"the driver has {len(found.gpus)}", "check the GPUs of the node with nvidia-smi, and the device plugin"
    lowest = OLDEST_GPU.get(built[0], (0, 0))
    old = next((gpu for gpu in found.gpus if gpu.capability < lowest), None)
    if old is not None:
        needs = f"CUDA {built[0]} needs compute capability {version_text(lowest)} or higher"
        return (
            f"{needs}, and {old.name} has {version_text(old.capability)}",
            "use newer GPUs, or set an image for an older CUDA version",
        )
    return "", ""


def _unusable(field: str, number: int, problem: str, found: Driver, built: Version | None, *, remedy: str = "") -> StageError:
    try:
        torch = f"PyTorch {version('torch')}"
    except PackageNotFoundError:
        torch = "PyTorch"
    facts = f"driver {found.release or 'unknown'} supports CUDA {version_text(found.cuda)}, {torch} is built for CUDA {version_text(built)}"
    requests = f"the pod requests {number} {'GPU' if number == 1 else 'GPUs'}, and {problem} ({facts})"
    return StageError(reasons.GPU_UNUSABLE, f"{field}: {requests}; {remedy or 'check the GPUs and the driver of the node'}.")


def _built_for_cpus(field: str, number: int) -> str:
    image = os.environ.get(IMAGE_VARIABLE) or "this image"
    return (
        f"{field}: the pod requests {number} {'GPU' if number == 1 else 'GPUs'}, and PyTorch in {image} is built for CPUs; use an image with"
        f" CUDA, or set {field} to 0."
    )
