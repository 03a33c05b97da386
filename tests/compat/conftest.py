"""The training program with the libraries of training images: one environment for each set of versions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from compat.environments import IN_CI, SETS, is_made, python
from finetune_contract.documents import TrainingInputs
from finetune_contract.result import LossPoint
from rendering import Tokenization, skill_rows
from stages.conftest import StagePrograms

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "operator", ROOT / "images")
SHIM = Path(__file__).parent / "shim"
ROWS = 50
SMALL = TrainingInputs("sft", "portable", 2, 16, 4096, 256, 1e-2)
CHOSEN = os.environ.get("FINETUNE_COMPAT_SETS", ",".join(IN_CI)).split(",")
"""Sets that are tested; ``make compat`` sets all of them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the argument ``libraries`` for each chosen set."""
    if "libraries" in metafunc.fixturenames:
        metafunc.parametrize("libraries", [name for name in SETS if name in CHOSEN], scope="session")


@dataclass(frozen=True)
class Trained:
    """A training that succeeded, with the folder of the run."""

    run: Path
    result: Any
    output: str

    @property
    def losses(self) -> list[float]:
        """Loss of each step."""
        points: list[LossPoint] = self.result.history
        return [point.loss for point in points]

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.run / "final_model"


@pytest.fixture(scope="session")
def old_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with files that transformers 4 can read, too: transformers 5 has renamed two settings."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "old")
    tokenizer, config = folder / "tokenizer_config.json", folder / "config.json"
    values = json.loads(tokenizer.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer.write_text(json.dumps(values, indent=2))
    values = json.loads(config.read_text())
    values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
    config.write_text(json.dumps(values, indent=2))
    return Path(folder)


@pytest.fixture(scope="session")
def train(old_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Trained]]:
    """Return the function that runs the training program: ``train(libraries, processes, **inputs)``. Equal calls run once."""
    started: list[StagePrograms] = []
    cache: dict[str, Trained] = {}

    def run(libraries: str, processes: int = 1, **changes: Any) -> Trained:
        key = repr((libraries, processes, sorted(changes.items())))
        if key not in cache:
            programs = StagePrograms(tmp_path_factory.mktemp("run") / "workspace")
            programs.workspace.mkdir()
            started.append(programs)
            cache[key] = _trained(programs, old_model, libraries, processes, replace(SMALL, **changes))
        return cache[key]

    yield run
    for programs in started:
        for running in programs.started:
            running.end()


def _trained(programs: StagePrograms, model: Path, libraries: str, processes: int, inputs: TrainingInputs) -> Trained:
    if not is_made(libraries):
        pytest.skip(f"the environment of the libraries {libraries} is not made; run make compat")
    stage = Tokenization(programs.workspace, programs.run)
    run = programs.path(programs.layout.root)
    run.mkdir(parents=True)
    (run / "base_model").symlink_to(model)
    stage.write(skill_rows("signature")[:ROWS])
    stage(max_seq_len=inputs.max_seq_len)
    program = python(libraries)
    environment = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (*SOURCES, SHIM))),
        "FINETUNE_TEST_CPU_SHIM": "1" if inputs.engine == "training-hub" else "0",
        "PET_NPROC_PER_NODE": str(processes),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = programs.start(
        "training", inputs, environment=environment, command=[str(program), "-m", "finetune_stages.training"]
    )
    ended = started.wait(timeout=280)
    assert ended.code == 0, f"{ended.message}\n{ended.output[-3000:]}\n{ended.errors[-6000:]}"
    return Trained(run, ended.result, ended.output)
