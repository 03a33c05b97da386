"""Check of an image: which trainings it can run on this machine, without a document and without a workspace.

``python -m finetune_stages.training --check`` prints one JSON document on standard output, and a table on a terminal. It imports torch only
if the pod has GPUs, or with ``--deep``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_contract import exitcodes
from finetune_contract.documents import GPUS_VARIABLE, IMAGE_VARIABLE, LoraInputs, OsftInputs, TrainingInputs
from finetune_stages.sdk import StageError, quick_imports
from finetune_stages.sdk.fault import first_line
from finetune_stages.sdk.gpus import OLDEST_DRIVER, requested_gpus, require_gpus, torch_cuda, torch_folder
from finetune_stages.sdk.nvidia import Driver, driver, version_text

from .engines import HUB, PORTABLE, offers
from .libraries import ADAPTERS, ENGINE, QUANTIZED, version
from .machine import available_memory, processors, readable
from .processes import GPU_FIELD
from .quantization import require_device

PACKAGES = {
    "portable": (*ENGINE, *ADAPTERS, *QUANTIZED, "triton", "liger-kernel"),
    "training-hub": ("training-hub", "instructlab-training", "rhai-innovation-mini-trainer", "flash-attn", "unsloth"),
}
"""Packages by engine. ``flash-attn`` is required by a backend of Training Hub; the portable engine uses PyTorch's attention."""
_HEADERS = (
    "#include <Python.h>\n#include <stdlib.h>\n#include <string.h>\nint finetune_check(void) { return PY_MAJOR_VERSION; }\n"
)
_KERNEL = """
import triton, triton.language as tl

@triton.jit
def add_one(values, count, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(values + offsets, tl.load(values + offsets, mask=offsets < count) + 1, mask=offsets < count)
"""
_RUN = "import torch\nfound = torch.zeros(1000, device='cuda')\nadd_one[(4,)](found, 1000, BLOCK=256)\nassert found.sum().item() == 1000\n"
_COMPILE = (
    "from triton.backends.compiler import GPUTarget\nfrom triton.compiler import ASTSource\n"
    "source = ASTSource(add_one, signature={'values': '*fp32', 'count': 'i32', 'BLOCK': 'constexpr'}, constexprs={'BLOCK': 256})\n"
    "assert triton.compile(source, target=GPUTarget('cuda', 90, 32)).asm['cubin']\n"
)
"""Compilation for compute capability 9.0, which needs no GPU."""
_SECONDS = 120


def main(arguments: Sequence[str]) -> int:
    """Run the check and return the exit code: 0 if at least one engine can train here, else 65."""
    parser = argparse.ArgumentParser(prog="python -m finetune_stages.training", description="Check what this image can train.")
    parser.add_argument("--check", action="store_true", required=True, help="print what this image can train, as JSON")
    parser.add_argument("--deep", action="store_true", help="import torch and compile a kernel even without a GPU")
    deep = parser.parse_args(arguments).deep
    try:
        requested_gpus()
    except StageError as error:
        print(error.message, file=sys.stderr)
        return exitcodes.USER_ERROR
    found = check(deep)
    if sys.stderr.isatty():
        print("\n".join(table(found)), file=sys.stderr)
    print(json.dumps(found, indent=1))
    return exitcodes.DONE if found["trains"] else exitcodes.USER_ERROR


def check(deep: bool = False) -> dict[str, Any]:
    """Return everything that is checked, as JSON values. ``deep``: import torch and compile a kernel even without a GPU."""
    started = time.monotonic()
    requested, present = os.environ.get(GPUS_VARIABLE), driver()
    unusable = _gpu_problem(present)
    trainings = [_training(name, inputs, unusable) for name, inputs in _trainings()]
    use_torch = torch_folder() is not None and (deep or (bool(present.gpus) and unusable is None))
    return {
        "python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}",
        "image": os.environ.get(IMAGE_VARIABLE),
        "processors": processors(), "availableMemoryBytes": available_memory(),
        "packages": {engine: {name: version(name) for name in names} for engine, names in PACKAGES.items()},
        "engines": trainings, "trains": any(training["works"] for training in trainings),
        "driver": {"version": present.release, "cuda": present.cuda and version_text(present.cuda), "problem": present.error},
        "gpus": [
            {"name": gpu.name, "memoryBytes": gpu.memory, "computeCapability": version_text(gpu.capability)} for gpu in present.gpus
        ],
        "requestedGpus": requested, "gpuProblem": unusable,
        "torch": {**_torch(), **(_imported_torch(bool(present.gpus) and unusable is None) if use_torch else {})},
        "compiler": compiler(), "triton": _triton(bool(present.gpus) and unusable is None) if use_torch else _not_run("torch is not imported"),
        "seconds": round(time.monotonic() - started, 2),
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> list[str]:
    """Return the document of :func:`check` as lines for people."""
    lines = [f"Python {found['python']}, {found['platform']}, {found['processors']} processors"]
    lines += [f"{'engine':<14}{'training':<12}works"]
    lines += [
        f"{one['engine']:<14}{one['training']:<12}{'yes' if one['works'] else 'no: ' + one['problem']}"
        for one in found["engines"]
    ]
    lines += [f"driver        {found['driver']['version'] or 'none'}, CUDA {found['driver']['cuda'] or 'none'}"]
    lines += [
        f"GPU           {gpu['name']}, {readable(gpu['memoryBytes'])}, compute capability {gpu['computeCapability']}"
        for gpu in found["gpus"]
    ]
    lines += [f"GPU problem   {found['gpuProblem']}"] if found["gpuProblem"] else []
    lines += [f"{name:<14}{_plain(found[name])}" for name in ("torch", "compiler", "triton")]
    for engine, packages in found["packages"].items():
        lines.append(
            f"{engine:<14}{', '.join(f'{name} {version}' for name, version in packages.items() if version) or 'not installed'}"
        )
    return lines


def compiler() -> dict[str, Any]:
    """Return the C compiler that Triton calls, and whether it compiles a source with the headers of Python and the C library."""
    command = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if command is None:
        return {"path": None, "works": False, "problem": "there is no C compiler: neither gcc, nor clang, nor CC"}
    include = sysconfig.get_paths(scheme=sysconfig.get_default_scheme().replace("posix_local", "posix_prefix"))["include"]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "check.c")
        source.write_text(_HEADERS, encoding="utf-8")
        words = [command, str(source), "-shared", "-fPIC", "-o", str(source.with_suffix(".so")), f"-I{include}"]
        problem = _run(words)
    return {"path": command, "works": problem is None, "problem": problem}


def _trainings() -> Iterator[tuple[str, TrainingInputs]]:
    """Yield a name and inputs for each training that the engines offer."""
    for engine in (HUB, PORTABLE):
        yield "sft", TrainingInputs("sft", engine, 1, 1, 1, 1, 1.0)
        yield "osft", TrainingInputs("osft", engine, 1, 1, 1, 1, 1.0, osft=OsftInputs())
    for quantization in ("none", "4bit", "8bit"):
        name = "lora" if quantization == "none" else f"lora {quantization}"
        yield name, TrainingInputs("lora", PORTABLE, 1, 1, 1, 1, 1.0, lora=LoraInputs(quantization=quantization))


def _training(name: str, inputs: TrainingInputs, unusable: str | None) -> dict[str, Any]:
    (offer,) = offers(inputs)
    problems = [unusable, offer.missing, *(limit.reason for limit in offer.limits if limit.binding)]
    if not any(problems):
        try:
            require_device(inputs)
        except StageError as error:
            problems.append(error.message)
    problem = "; ".join(filter(None, problems)) or None
    return {"engine": inputs.engine, "training": name, "works": problem is None, "problem": problem}


def _gpu_problem(present: Driver) -> str | None:
    try:
        require_gpus(GPU_FIELD, present)
    except StageError as error:
        return error.message
    return None


def _torch() -> dict[str, Any]:
    built = torch_cuda()
    oldest = OLDEST_DRIVER.get(built[0]) if built else None
    nccl = version(f"nvidia-nccl-cu{built[0]}") if built else None
    return {"version": version("torch"), "cuda": built and version_text(built), "oldestDriver": oldest, "nccl": nccl}


def _imported_torch(gpu: bool) -> dict[str, Any]:
    """Import torch, and return what it can do."""
    started = time.monotonic()
    try:
        with quick_imports():
            import torch
        found: dict[str, Any] = {
            "importSeconds": round(time.monotonic() - started, 2),
            "cudaAvailable": torch.cuda.is_available(),
        }
        if gpu:
            ones = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
            found.update(
                bf16=torch.cuda.is_bf16_supported(including_emulation=False), nccl=".".join(map(str, torch.cuda.nccl.version())),
                multiplies=bool((ones @ ones == 64).all()), freeMemoryBytes=torch.cuda.mem_get_info()[0],
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - a check reports whatever fails
        return {"problem": f"{type(error).__name__}: {first_line(error)}"}
    return found


def _triton(gpu: bool) -> dict[str, Any]:
    """Compile a kernel with Triton, and run it on a GPU; a process of its own, because a crash of the compiler ends it."""
    if version("triton") is None:
        return _not_run("the package triton is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "kernel.py")
        program.write_text(_KERNEL + (_RUN if gpu else _COMPILE), encoding="utf-8")
        problem = _run([sys.executable, str(program)], {"TRITON_CACHE_DIR": scratch})
    return {"compiles": problem is None, "runs": problem is None if gpu else None, "problem": problem}


def _not_run(why: str) -> dict[str, Any]:
    return {"compiles": None, "runs": None, "problem": f"not run: {why}"}


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> str | None:
    """Run a command and return its last line of errors if it fails."""
    environment = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return first_line(error)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit code {done.returncode}"])[-1].strip()[:500]


def _plain(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
