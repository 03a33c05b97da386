"""``--check``: what an image can train, from the real packages, a real compiler, and a driver with GPUs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.training_bundle import training_bundle
from finetune_stages.training.check import compiler, table
from nvidia_driver import machine_with_gpus

WITHOUT_TORCH = (
    "import sys; from finetune_stages.training.__main__ import main; code = main(); assert 'torch' not in sys.modules;"
    " raise SystemExit(code)"
)


def run_check(*arguments: str, code: int = 0, **variables: str) -> dict[str, Any]:
    """Run the check, which must not import torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, "--check", *arguments]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def works(found: dict[str, Any]) -> dict[str, bool]:
    return {f"{one['engine']} {one['training']}": one["works"] for one in found["engines"]}


def test_an_image_that_trains_on_cpus(tmp_path):
    found = run_check(FINETUNE_GPUS="0")
    assert found["trains"]
    assert works(found) == {
        "training-hub sft": False, "training-hub osft": False,
        "portable sft": True, "portable osft": True, "portable lora": True, "portable lora 4bit": False, "portable lora 8bit": False,
    }  # fmt: skip
    assert found["packages"]["portable"]["torch"] == found["torch"]["version"]
    assert found["packages"]["training-hub"]["training-hub"] is None
    assert found["compiler"]["works"]
    assert "importSeconds" not in found["torch"]
    assert found["seconds"] < 30
    lines = table(found)
    assert any(line.startswith("portable      sft         yes") for line in lines)
    assert any(
        line.startswith("portable      lora 4bit   no: training.lora.quantization: 4bit requires an NVIDIA GPU") for line in lines
    )


def test_gpus_and_an_old_driver_are_reported(tmp_path):
    found = run_check(code=65, FINETUNE_GPUS="2", **machine_with_gpus(tmp_path, gpus=2, cuda=12080, release="570.86.15"))
    assert not found["trains"]
    assert found["driver"] == {"version": "570.86.15", "cuda": "12.8", "problem": None}
    assert found["gpus"] == [{"name": "NVIDIA H200", "memoryBytes": 80 << 30, "computeCapability": "9.0"}] * 2
    assert "needs a driver for CUDA 13, which is 580 or newer (driver 570.86.15 supports CUDA 12.8" in found["gpuProblem"]
    assert set(works(found).values()) == {False}
    assert any(line.startswith("GPU problem   training.gpusPerWorker: the pod requests 2 GPUs") for line in table(found))
    assert any(line == "GPU           NVIDIA H200, 80.0 GiB, compute capability 9.0" for line in table(found))


def test_an_image_without_the_engine(tmp_path):
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path[:0] = {sys.path[:0] + roots()!r}; " + WITHOUT_TORCH,
        "--check",
    ]
    done = subprocess.run(command, env={**os.environ, "FINETUNE_GPUS": "0"}, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["trains"]) == (65, False)
    assert "requires the Python package torch" in found["engines"][2]["problem"]
    assert found["engines"][0]["problem"] == (
        "it requires the Python package training-hub 0.4.0 or newer, and the image does not have it"
    )
    assert "portable      not installed" in table(found)


def roots() -> list[str]:
    """The folders of this project's packages, without those of the libraries."""
    here = Path(__file__).parents[3]
    return [str(here / "operator"), str(here / "images")]


def test_deep_imports_torch_and_compiles_a_kernel():
    command = [sys.executable, "-m", "finetune_stages.training", "--check", "--deep"]
    done = subprocess.run(command, env={**os.environ, "FINETUNE_GPUS": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["torch"]["cudaAvailable"] is False
    assert found["torch"]["importSeconds"] > 0
    if found["packages"]["portable"]["triton"]:
        assert found["triton"] == {"compiles": True, "runs": None, "problem": None}
    else:
        assert found["triton"]["problem"] == "not run: the package triton is not installed"


def test_a_missing_compiler_or_header_is_named(monkeypatch, tmp_path):
    assert compiler()["works"]
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    found = compiler()
    assert not found["works"]
    assert "Python.h" in found["problem"]
    monkeypatch.setenv("CC", str(tmp_path / "missing"))
    assert "No such file" in compiler()["problem"]
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler() == {"path": None, "works": False, "problem": "there is no C compiler: neither gcc, nor clang, nor CC"}


@pytest.mark.parametrize("gpus", ["0", "1"])
def test_the_zip_application_checks_too(tmp_path, gpus):
    archive = tmp_path / "training.pyz"
    archive.write_bytes(base64.b64decode(training_bundle().archive))
    machine = machine_with_gpus(tmp_path, cuda=12080)
    machine["PYTHONPATH"] = os.pathsep.join([machine["PYTHONPATH"], sysconfig.get_path("purelib")])
    environment = {**os.environ, **machine, "FINETUNE_GPUS": gpus}
    done = subprocess.run(
        [sys.executable, "-S", str(archive), "--check"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == (65 if gpus == "1" else 0), done.stderr
    assert len(json.loads(done.stdout)["gpus"]) == 1


@pytest.mark.parametrize("arguments", [["--chek"], ["--deep"]])
def test_an_unknown_argument_does_not_start_the_stage(arguments):
    command = [sys.executable, "-m", "finetune_stages.training", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--check" in done.stderr


def test_a_wrong_number_of_gpus_is_a_message_and_no_traceback():
    command = [sys.executable, "-m", "finetune_stages.training", "--check"]
    done = subprocess.run(command, env={**os.environ, "FINETUNE_GPUS": "abc"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr == "environment variable FINETUNE_GPUS: 'abc' is not valid; set a number of GPUs.\n"
