"""The plain stage as a program, and as another run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import RunInfo

PROGRAM = str(Path(__file__).with_name("plain_stage.py"))


@dataclass
class Stage:
    """The stage on a workspace. Call it to run the program to its end."""

    programs: Any

    def __call__(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        """Run the program; ``options`` are those of the programs."""
        return self.programs("training", inputs, command=[sys.executable, PROGRAM], **options)

    def as_run(self, letter: str) -> None:
        """From now on it is this run on the same workspace."""
        self.programs.run = RunInfo(f"run-{letter}", "team-a", letter * 16)

    @property
    def folder(self) -> Path:
        """The folder of the stage in that of the run."""
        return Path(self.programs.path(self.programs.layout.folder("training")))

    def worked(self) -> list[str]:
        """The runs that did work, in order."""
        return [line.split()[0] for line in (self.programs.workspace / "worked.txt").read_text().splitlines()]

    def published(self) -> dict[str, bytes]:
        """Everything in the run's folder but logs and results, by name. A dot-file is a sentinel, or what a killed writer left."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.parent.name != "logs" and path.name not in ("current", "pipeline_log.txt")
            and not path.name.startswith(".")
            and not path.match("results/training*.json")
        }  # fmt: skip


@pytest.fixture
def stage(run_stage_program: Any) -> Stage:
    """The stage on an empty workspace, as run *a*."""
    found = Stage(run_stage_program)
    found.as_run("a")
    return found
