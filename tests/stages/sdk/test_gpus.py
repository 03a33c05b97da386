"""GPUs are those that the pod requests: checked with the driver before torch is imported, and never replaced by CPUs."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_contract import reasons
from finetune_contract.documents import GPUS_VARIABLE
from finetune_stages.sdk import StageError, gpus, nvidia
from finetune_stages.sdk.gpus import on_gpu, requested_gpus, require_gpus, torch_cuda
from finetune_stages.sdk.nvidia import GPU, Driver, driver, read_driver
from nvidia_driver import driver_library

FIELD = "training.gpusPerWorker"
H200 = GPU("NVIDIA H200", 80 << 30, (9, 0))


def missing(name: str) -> ctypes.CDLL:
    raise OSError(name)


def load_from(folder: Path):
    return lambda name: ctypes.CDLL(str(folder / name))


@pytest.fixture
def built_for_cuda_13(monkeypatch):
    monkeypatch.setattr(gpus, "torch_cuda", lambda: (13, 2))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The variables that the check sets are set back after each test."""
    for name in (GPUS_VARIABLE, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    gpus._visible.cache_clear()


def test_the_driver_has_release_cuda_version_and_gpus(tmp_path):
    found = read_driver(load_from(driver_library(tmp_path, gpus=2)), tmp_path / "none")
    assert found == Driver("590.44.01", (13, 2), (H200, H200))


def test_the_kernel_modules_release_takes_precedence(tmp_path):
    module = tmp_path / "version"
    module.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n")
    assert read_driver(load_from(driver_library(tmp_path)), module).release == "580.95.05"


@pytest.mark.parametrize(("code", "name"), [(802, "CUDA_ERROR_SYSTEM_NOT_READY"), (999, "CUDA error 999")])
def test_a_driver_that_does_not_start_is_an_error_with_its_name(tmp_path, code, name):
    found = read_driver(load_from(driver_library(tmp_path, init=code)), tmp_path / "none")
    assert (found.cuda, found.gpus, found.error) == ((13, 2), (), f"the NVIDIA driver cannot be initialized ({name})")


def test_a_driver_that_cannot_count_and_knows_no_versions():
    library = SimpleNamespace(
        cuInit=lambda flags: 0, cuDriverGetVersion=lambda number: 1, cuDeviceGetCount=lambda number: 3, cuGetErrorName=lambda *_: 1,
        nvmlInit_v2=lambda: 9,
    )  # fmt: skip
    found = read_driver(lambda name: library, Path("/nowhere"))
    assert found == Driver(None, None, (), "the NVIDIA driver cannot count its GPUs (CUDA error 3)")


def test_without_a_driver_there_is_no_gpu():
    assert read_driver(missing) == driver(missing) == Driver(error="there is no NVIDIA driver (libcuda.so.1)")


def test_the_driver_is_read_in_a_process_of_its_own(tmp_path):
    """A driver that was initialized in this process would ignore CUDA_VISIBLE_DEVICES from then on."""
    folder = driver_library(tmp_path, gpus=3)
    code = "from finetune_stages.sdk.nvidia import driver; print(len(driver().gpus))"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout == "3\n"
    )
    environment["CUDA_VISIBLE_DEVICES"] = ""
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout == "0\n"
    )


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os; os.abort()", "ended the process that initialized it (exit code -6)"),
        ("import time; time.sleep(60)", "did not initialize within 1 seconds"),
    ],
)
def test_a_driver_that_crashes_or_blocks_is_an_error(monkeypatch, program, error):
    loader = SimpleNamespace(get_source=lambda name: program)
    monkeypatch.setattr(nvidia, "find_spec", lambda name: SimpleNamespace(loader=loader))
    monkeypatch.setattr(nvidia, "_SECONDS", 1)
    assert driver(lambda name: None).error == f"the NVIDIA driver {error}"


@pytest.mark.usefixtures("built_for_cuda_13")
@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            driver(missing),
            "requests 2 GPUs, and there is no NVIDIA driver (libcuda.so.1) (driver unknown supports CUDA unknown, PyTorch",
        ),
        (
            Driver("570.86.15", (12, 8), (H200, H200)),
            "PyTorch needs a driver for CUDA 13, which is 580 or newer (driver 570.86.15 supports CUDA 12.8, PyTorch",
        ),
        (Driver("570.86.15", (12, 8), (), "cannot be initialized"), "PyTorch needs a driver for CUDA 13"),
        (
            Driver("580.95.05", (13, 0), (), "it cannot be initialized (CUDA_ERROR_SYSTEM_NOT_READY)"),
            "CUDA_ERROR_SYSTEM_NOT_READY",
        ),
        (
            Driver("580.95.05", (13, 0), (H200,)),
            "requests 2 GPUs, and the driver has 1 (driver 580.95.05 supports CUDA 13.0, PyTorch",
        ),
        (
            Driver("580.95.05", (13, 0), (GPU("Tesla V100", 1, (7, 0)), H200)),
            "CUDA 13 needs compute capability 7.5 or higher, and Tesla V100 has 7.0",
        ),
    ],
)
def test_fewer_usable_gpus_than_requested_are_reported_with_the_versions(monkeypatch, found, sentence):
    monkeypatch.setenv(GPUS_VARIABLE, "2")
    with pytest.raises(StageError, match=re.escape(sentence)) as raised:
        require_gpus(FIELD, found)
    assert raised.value.reason is reasons.GPU_UNUSABLE
    assert raised.value.reason.exit_code == 75, "another node may have working GPUs"
    assert raised.value.message.startswith(f"{FIELD}: the pod requests 2 GPUs, and ")
    assert "is built for CUDA 13.2); " in raised.value.message


@pytest.mark.usefixtures("built_for_cuda_13")
def test_an_older_minor_version_and_more_gpus_are_enough(monkeypatch):
    monkeypatch.setenv(GPUS_VARIABLE, "1")
    assert require_gpus(FIELD, Driver("580.65.06", (13, 0), (H200, H200))) == 1
    assert on_gpu()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.usefixtures("built_for_cuda_13")
def test_gpus_that_are_not_requested_are_hidden(monkeypatch):
    monkeypatch.setenv(GPUS_VARIABLE, "0")
    assert require_gpus(FIELD, Driver("580.65.06", (13, 0), (H200,))) == 0
    assert not on_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_without_the_variable_the_drivers_gpus_count(monkeypatch):
    monkeypatch.setattr(gpus, "driver", lambda: Driver("590.44.01", (13, 2), (H200, H200)))
    assert requested_gpus() == 2
    gpus._visible.cache_clear()
    monkeypatch.setattr(gpus, "driver", lambda: driver(missing))
    assert requested_gpus() == 0
    gpus._visible.cache_clear()


def test_a_variable_that_is_no_number_is_rejected(monkeypatch):
    monkeypatch.setenv(GPUS_VARIABLE, "all")
    with pytest.raises(StageError, match=r"environment variable FINETUNE_GPUS: 'all' is not valid") as raised:
        requested_gpus()
    assert raised.value.reason is reasons.BAD_DOCUMENT


@pytest.mark.parametrize(
    ("line", "version"),
    [("cuda: Optional[str] = '13.2'", (13, 2)), ("cuda: Optional[str] = None", None), ("cuda = '12.8'", (12, 8)), ("", None)],
)
def test_the_cuda_version_of_torch_is_read_from_its_file(tmp_path, line, version):
    (tmp_path / "version.py").write_text(f"__version__ = '2.15.0'\n{line}\n")
    assert torch_cuda(tmp_path) == version


def test_this_torch_has_the_version_that_it_reports():
    import torch

    folder = Path(torch.__file__).parent
    expected = None if (folder / gpus.PLACEHOLDERS).exists() else tuple(map(int, str(torch.version.cuda).split(".")))
    assert torch_cuda() == expected


def test_an_image_for_cpus_is_named(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "version.py").write_text("cuda = '13.2'\n")
    (tmp_path / gpus.PLACEHOLDERS).write_text("libcublas.so.13\n")
    monkeypatch.setattr(gpus, "torch_folder", lambda: tmp_path)
    monkeypatch.setenv(GPUS_VARIABLE, "1")
    monkeypatch.setenv("FINETUNE_IMAGE", "quay.io/team/image:1")
    with pytest.raises(StageError, match=r"requests 1 GPU, and PyTorch in quay.io/team/image:1 is built for CPUs; use") as raised:
        require_gpus(FIELD)
    assert raised.value.reason is reasons.ENGINE_MISSING


def test_a_missing_torch_is_left_to_the_engines_check(monkeypatch):
    monkeypatch.setattr(gpus, "torch_folder", lambda: None)
    monkeypatch.setenv(GPUS_VARIABLE, "1")
    assert require_gpus(FIELD) == 1
    assert torch_cuda() is None


def test_torch_that_cannot_use_the_gpus_is_reported():
    """The driver may have GPUs that torch cannot use: here the driver has none, and torch is the installed one."""
    code = "from finetune_stages.sdk.gpus import require_torch_gpus; require_torch_gpus('evaluation.gpus')"
    failed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, GPUS_VARIABLE: "1"}, capture_output=True, text=True, check=False
    )
    last = failed.stderr.splitlines()[-1]
    assert "evaluation.gpus: the pod requests 1 GPU, and PyTorch cannot use them (" in last
    assert last.endswith("; check the GPUs and the driver of the node.")
    none = subprocess.run([sys.executable, "-c", code], env={**os.environ, GPUS_VARIABLE: "0"}, capture_output=True, check=False)
    assert none.returncode == 0


def test_the_module_prints_json(tmp_path):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver_library(tmp_path))}
    done = subprocess.run([sys.executable, nvidia.__file__], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["590.44.01", [13, 2], [["NVIDIA H200", 80 << 30, [9, 0]]], None]
