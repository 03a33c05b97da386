"""A workspace with prepared rows and the tiny model, and the training program on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract import progress as progress_lines
from finetune_contract.documents import TrainingInputs
from finetune_contract.progress import Progress
from rendering import Tokenization, skill_rows

ROWS = 50
"""With steps of 16 rows, the last one of an epoch has two."""
SMALL = TrainingInputs("sft", "portable", 2, 16, 4096, 256, 1e-2)
"""A training of seconds; the tests change what they are about."""


@dataclass
class TrainingBench:
    """The training program on a workspace."""

    programs: Any  # tests/stages/conftest.py: StagePrograms

    def train(self, inputs: TrainingInputs = SMALL, **options: Any) -> Any:
        """Run the program to its end."""
        return self.programs("training", inputs, **options)

    def start(self, inputs: TrainingInputs = SMALL, **options: Any) -> Any:
        """Start the program."""
        return self.programs.start("training", inputs, **options)

    def path(self, name: str) -> Path:
        """A path in the folder of the stage."""
        return Path(self.programs.path(f"{self.programs.layout.folder('training')}/{name}"))

    def run_path(self, name: str) -> Path:
        """A path in the run's folder."""
        return Path(self.programs.path(f"{self.programs.layout.root}/{name}"))

    def write_rows(self, rows: Sequence[Any]) -> None:
        """Prepared and tokenized rows."""
        stage = Tokenization(self.programs.workspace, self.programs.run)
        stage.write(rows)
        stage(max_seq_len=256)

    def leftovers(self) -> list[str]:
        """Unexpected files in the run's folder."""
        known = (
            "base_model",
            "datasets",
            "tokens",
            "training/final_model",
            "training/adapter",
            "training/checkpoints",
            "training/results",
            "training/logs",
            "training/pipeline_log.txt",
            "training/attempts/training/current",
            "results",
            "logs",
            "pipeline_log.txt",
            "attempts/tokenization/current",
        )
        names = (str(path.relative_to(self.run_path("."))) for path in self.run_path(".").rglob("*") if path.is_file())
        return [name for name in names if not name.startswith(known)]

    def wait_for(self, wanted: Callable[[Progress], bool], seconds: float = 120) -> None:
        """Wait until the first process logs such progress."""
        log = self.path("logs/training.1.1.0.log")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen = progress_lines.last(log.read_text()) if log.exists() else None
            if seen is not None and wanted(seen):
                return
            time.sleep(0.05)
        raise AssertionError(f"no such progress within {seconds} s")


@pytest.fixture
def bench(run_stage_program: Any, tiny_model: Path) -> TrainingBench:
    """The program on 50 rows of the signature skill, which the tiny model has not seen."""
    return _prepared(run_stage_program, tiny_model)


@pytest.fixture(scope="module")
def new_bench(stage_programs: Callable[[], Any], tiny_model: Path) -> Callable[..., TrainingBench]:
    """Makes benches whose run several tests look at; ``new_bench(model)`` for another base model."""
    return lambda model=tiny_model: _prepared(stage_programs(), model)


def _prepared(programs: Any, model: Path) -> TrainingBench:
    bench = TrainingBench(programs)
    bench.path(".").mkdir(parents=True)
    bench.run_path("base_model").symlink_to(model)
    bench.write_rows(skill_rows("signature")[:ROWS])
    return bench


@pytest.fixture(scope="session")
def inputs() -> Callable[..., TrainingInputs]:
    """``inputs(epochs=2)``: the small training with that change."""
    return lambda **changes: replace(SMALL, **changes)
