"""What the tests of the stage programs share: a tiny real model, and a way to run a program as its container does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.codec import digest, encode
from finetune_contract.documents import EvaluationInputs, RunInfo, StageDocument, TokenizationInputs
from finetune_contract.result import Result, parse_message
from finetune_contract.workspace import RunLayout
from stages.warm import WarmProgram, WarmStarter

RUN = RunInfo("demo", "team-a", "0123456789abcdef")
_WITH_HEAVY_IMPORTS = ("dataset", "model", "tokenization", "training", "evaluation")
_READ_AT_START = ("PYTHON", "LD_", "OMP_", "TORCH", "PYTORCH")
"""Prefixes of variables that Python, the loader or PyTorch reads once."""


@dataclass(frozen=True)
class Ended:
    """How a stage program ended: exit code, what it printed, and its result in the termination message."""

    code: int
    output: str
    errors: str
    message: str
    result: Result | None

    @property
    def reason(self) -> str | None:
        """Name of the reason of a failure."""
        return self.result.reason if self.result else None


@dataclass
class Running:
    """A stage program at work, in a session of its own with whatever it starts."""

    process: subprocess.Popen[str] | WarmProgram
    termination: Path

    def wait(self, timeout: float = 240) -> Ended:
        """Wait for its end."""
        output, errors = self.process.communicate(timeout=timeout)
        message = self.termination.read_text() if self.termination.exists() else ""
        return Ended(self.process.returncode, output, errors, message, parse_message(message))

    def end(self) -> None:
        """Kill it and all processes that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@dataclass
class StagePrograms:
    """Starts stage programs on one workspace, the way their containers are started. Call it to run one to its end."""

    workspace: Path
    warm: WarmStarter | None = None
    run: RunInfo = RUN
    started: list[Running] = field(default_factory=list)

    @property
    def task_files(self) -> Path:
        """The mounted ConfigMap of ``evaluation.taskFiles``, if a test makes this folder."""
        return self.workspace.parent / "task-files"

    @property
    def layout(self) -> RunLayout:
        """The run's workspace-relative paths."""
        return self.run.layout

    def path(self, relative: str) -> Path:
        """A workspace-relative path, absolute."""
        return self.workspace / relative

    def __call__(self, stage: str, inputs: Any, **options: Any) -> Ended:
        """Run the program to its end; ``options`` are those of :meth:`start`."""
        return self.start(stage, inputs, **options).wait()

    def start(
        self,
        stage: str,
        inputs: Any,
        *,
        attempt: str = "1.1",
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        cwd: Path | None = None,
    ) -> Running:
        """Start the program of ``stage`` on ``inputs``, a dataclass of the contract or its JSON values.

        Args:
            environment: variables beside those of the contract.
            command: what to run in place of ``python -m finetune_stages.<stage>``.
            cwd: where to run it.
        """
        number = len(self.started)
        mounted = {}
        if isinstance(inputs, (EvaluationInputs, TokenizationInputs)) and self.task_files.is_dir():
            inputs, mounted = replace(inputs, task_files=True), {"FINETUNE_TASK_FILES": str(self.task_files)}
        folder = self.workspace.parent / f"program-{number}"
        (folder / "tmp").mkdir(parents=True)
        document = StageDocument(2, stage, self.run, encode(inputs))
        (folder / "document.json").write_text(json.dumps(encode(document)))
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "FINETUNE_CONFIG": str(folder / "document.json"),
            "FINETUNE_WORKSPACE": str(self.workspace),
            "FINETUNE_RESULT": str(folder / "termination-log"),
            "FINETUNE_ATTEMPT": attempt,
            "FINETUNE_INPUTS_DIGEST": digest(encode(inputs)),
            **mounted,
            **(environment or {}),
        }
        running = Running(self._process(stage, variables, command, cwd or folder), folder / "termination-log")
        self.started.append(running)
        return running

    def _process(
        self, stage: str, variables: Mapping[str, str], command: Sequence[str] | None, cwd: Path
    ) -> subprocess.Popen[str] | WarmProgram:
        module = f"finetune_stages.{stage}"
        known_at_start = any(name.startswith(_READ_AT_START) for name in variables if name != "OMP_NUM_THREADS")
        if self.warm and command is None and stage in _WITH_HEAVY_IMPORTS and not known_at_start:
            return self.warm.start(module, variables, cwd)
        return subprocess.Popen(
            command or [sys.executable, "-m", module],
            env=variables, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="session")
def warm_starter() -> Iterator[WarmStarter]:
    """Starts programs with PyTorch in less time."""
    starter = WarmStarter()
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def stage_programs(tmp_path_factory: pytest.TempPathFactory, warm_starter: WarmStarter) -> Iterator[Callable[[], StagePrograms]]:
    """Makes :class:`StagePrograms`, each on an empty workspace of its own, for runs that several tests look at."""
    made: list[StagePrograms] = []

    def make() -> StagePrograms:
        workspace = tmp_path_factory.mktemp("run") / "workspace"
        workspace.mkdir()
        made.append(StagePrograms(workspace, warm_starter))
        return made[-1]

    yield make
    for running in (running for programs in made for running in programs.started):
        running.end()


@pytest.fixture
def run_stage_program(tmp_path: Path, warm_starter: WarmStarter) -> Iterator[StagePrograms]:
    """A :class:`StagePrograms` on an empty workspace; whatever it leaves running is killed when the test is over."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    programs = StagePrograms(workspace, warm_starter)
    yield programs
    for running in programs.started:
        running.end()
