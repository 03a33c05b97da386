"""CPU shim for Training Hub's backends, for tests only: instructlab-training and mini-trainer call CUDA by name.

It is active in a process with ``FINETUNE_TEST_CPU_SHIM=1`` and without a GPU, and prints a line about it. It only redirects: devices
named ``cuda`` become the CPU, NCCL becomes gloo, what queries a GPU's memory returns zeros, and the training program finds the GPUs
that it was asked for. All computations are the libraries' own.
``tests/compat/test_shim.py`` checks that every CUDA call in these packages is covered.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

PACKAGES = ("mini_trainer", "instructlab.training")
"""Packages whose modules get a ``torch`` with devices redirected."""
REDIRECTED = ("current_device", "empty_cache", "memory_stats", "reset_peak_memory_stats", "set_device", "synchronize")
"""Functions of ``torch.cuda`` that fail without a GPU, or that return nothing that these packages can use."""


class _DeviceType(type):
    def __call__(cls, kind: Any = "cpu", *more: Any) -> Any:
        import torch

        named = isinstance(kind, str) and kind.partition(":")[0] == "cuda"
        return torch.device("cpu") if named else torch.device(kind, *more)

    def __instancecheck__(cls, value: object) -> bool:
        import torch

        return isinstance(value, torch.device)


class Device(metaclass=_DeviceType):
    """``torch.device`` whose CUDA devices are the CPU."""


class RedirectedTorch(types.ModuleType):
    """The module ``torch`` with :class:`Device`."""

    device = Device

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch, name)


def _redirect_torch() -> None:
    """Redirect public functions of torch, once a process."""
    import torch
    import torch.distributed as dist

    cuda = torch.cuda
    if getattr(cuda, "finetune_test_shim", False):
        return
    cuda.finetune_test_shim = True  # type: ignore[attr-defined]
    for name in ("empty_cache", "reset_peak_memory_stats", "set_device", "synchronize"):
        setattr(cuda, name, lambda *_, **__: None)
    cuda.memory_stats = lambda *_, **__: {"num_alloc_retries": 0}  # type: ignore[assignment]
    cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment,method-assign]
    start = dist.init_process_group

    def init_process_group(backend: str | None = None, *arguments: Any, **options: Any) -> None:
        options.pop("device_id", None)
        start("gloo", *arguments, **options)

    dist.init_process_group = init_process_group
    print("CPU shim of the tests: devices named cuda are the CPU, and NCCL is gloo", flush=True)


def _replace_fsdp() -> None:
    """Let accelerate treat a model in DDP, which it uses on CPUs, as one in FSDP: it is wrapped once, and its weights keep their names."""
    from accelerate import Accelerator
    from torch.nn.parallel import DistributedDataParallel

    prepare, state = Accelerator.prepare_model, Accelerator.get_state_dict

    def prepare_model(self: Any, model: Any, *arguments: Any, **options: Any) -> Any:
        return model if isinstance(model, DistributedDataParallel) else prepare(self, model, *arguments, **options)

    def get_state_dict(self: Any, model: Any, *arguments: Any, **options: Any) -> Any:
        # instructlab-training passes its own object, with the attributes of the model in DDP.
        return state(self, getattr(model, "module", model), *arguments, **options)

    Accelerator.prepare_model = prepare_model
    Accelerator.get_state_dict = get_state_dict


def _redirect(module: types.ModuleType) -> None:
    if isinstance(module.__dict__.get("torch"), types.ModuleType):
        module.torch = RedirectedTorch("torch")  # type: ignore[attr-defined]
    if mesh := module.__dict__.get("init_device_mesh"):
        module.init_device_mesh = lambda _kind, *arguments, **options: mesh("cpu", *map(tuple, arguments), **options)  # type: ignore[attr-defined]


GPUS = "finetune_stages.sdk.gpus"
"""Module of the training program that compares the requested GPUs with the driver. The folder ``flash_attn-*.dist-info`` states that flash-attn is installed."""


class _Loader(importlib.abc.Loader):
    """The loader of a module, and what follows it. A zip file has one loader for all its modules."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        module: types.ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == GPUS:
            self._loader.exec_module(module)
            module.require_gpus = lambda *_: module.requested_gpus()  # type: ignore[attr-defined]
            return
        import torch

        if torch.cuda.is_available():
            self._loader.exec_module(module)
            return
        _redirect_torch()
        self._loader.exec_module(module)
        _redirect(module)
        if module.__name__ == "instructlab.training.accelerator":
            _replace_fsdp()


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> Any:
        if name != GPUS and not name.startswith(tuple(f"{package}." for package in PACKAGES)):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


if os.environ.get("FINETUNE_TEST_CPU_SHIM") == "1":
    os.environ.setdefault("TESTING", "true")  # mini-trainer uses transformers' attention if flash-attn is not installed
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # new versions of accelerate count processes without GPUs only with it
    # Most of the time of these processes is for imports and for compiling functions that run a few times.
    gc.disable()
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    sys.meta_path.insert(0, _Finder())
