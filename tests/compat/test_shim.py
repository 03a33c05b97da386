"""The CPU shim covers what Training Hub's backends call of CUDA. A new version that calls more fails here, with the name."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from compat.sets import SETS

from .conftest import interpreter_of

HERE = Path(__file__).parent


def run(libraries: str, *words: str, shim: str = "1") -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE / "shim"),
        "FINETUNE_TEST_CPU_SHIM": shim,
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([interpreter_of(libraries), *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_covers_every_call_of_cuda(libraries):
    output = run(libraries, str(HERE / "covered.py"))
    assert "CPU shim of the tests" in output  # it states that it is one
    assert json.loads(output.splitlines()[-1]) == {"calls": [], "devices": [], "meshes": []}


def test_without_its_variable_it_changes_nothing():
    output = run(SETS[0], "-c", "import mini_trainer.utils as m, types; print(type(m.torch) is types.ModuleType)", shim="0")
    assert output.split() == ["True"]
