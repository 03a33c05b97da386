"""Stage programs on two workspaces, one for each model, started as their pods start them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_contract.codec import encode
from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.result import Result, parse_message, parse_result

RUNS = {"gpu": RunInfo("gpu", "check", "00000001"), "cpu": RunInfo("cpu", "check", "00000002")}
"""A run for each device, so that both can work at the same time."""


@dataclass(frozen=True)
class Ended:
    """End of a program: exit code, full result (the short one after a failure), seconds, last lines of its log."""

    code: int
    result: Result | None
    seconds: float
    tail: str


@dataclass
class Running:
    """A program at work, in a session of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    full_result: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float) -> Ended:
        """Wait for its end.

        Raises:
            TimeoutError: it did not end in time, and was killed.
        """
        try:
            code = self.process.wait(timeout=max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self.end()
            raise TimeoutError(f"did not end within {seconds:.0f} s; last line: {_last_line(self.log)}") from None
        short = self.folder / "result"
        result = parse_message(short.read_text()) if short.exists() else None
        if code == 0 and self.full_result.exists():
            result = parse_result(json.loads(self.full_result.read_bytes()))
        return Ended(code, result, time.monotonic() - self.started, "\n".join(self.log.splitlines()[-15:]))

    def end(self) -> None:
        """Kill it and all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


@dataclass
class Programs:
    """Starts programs below a folder.

    Attributes:
        tiny: everything runs on the CPU, with tiny shapes.
    """

    folder: Path
    tiny: bool
    started: list[Running] = field(default_factory=list)

    def workspace(self, model: str) -> Path:
        """Return the workspace for a model, ``tiny`` or ``large``."""
        return self.folder / model

    def run_path(self, model: str, device: str, name: str) -> Path:
        """Return a path in the folder of a run."""
        return self.workspace(model) / RUNS[device].layout.root / name

    def start(self, stage: str, inputs: Any, model: str, device: str, *, program: str | None = None, **variables: str) -> Running:
        """Start a stage program (by default that of the stage's name) on the model's workspace, on ``gpu`` or ``cpu``."""
        run = RUNS[device]
        document = json.dumps(encode(StageDocument(2, stage, run, encode(inputs))))
        gpus = "1" if device == "gpu" and not self.tiny else "0"
        self.workspace(model).mkdir(exist_ok=True)
        return self._start(
            ["-m", f"finetune_stages.{program or stage}"], self.workspace(model) / run.layout.newest_result(stage), document,
            {"FINETUNE_WORKSPACE": str(self.workspace(model)), "FINETUNE_GPUS": gpus, **variables},
        )  # fmt: skip

    def python(self, *arguments: str, device: str = "gpu") -> Running:
        """Start a Python program."""
        gpus = "1" if device == "gpu" and not self.tiny else "0"
        return self._start([*arguments], Path("/nonexistent"), "{}", {"FINETUNE_GPUS": gpus})

    def share_run(self, model: str) -> None:
        """Give the run of the other device the same data, tokens and base model."""
        source, target = (self.run_path(model, device, ".") for device in ("gpu", "cpu"))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)

    def end(self) -> None:
        """Kill every program that still works."""
        for running in self.started:
            if running.process.poll() is None:
                running.end()

    def _start(self, arguments: list[str], full_result: Path, document: str, variables: Mapping[str, str]) -> Running:
        folder = self.folder / f"program-{len(self.started)}"
        (folder / "tmp").mkdir(parents=True)
        (folder / "document.json").write_text(document, encoding="utf-8")
        full_result.unlink(missing_ok=True)
        environment = {
            **os.environ, "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path[1:]), "FINETUNE_CONFIG": str(folder / "document.json"),
            "FINETUNE_RESULT": str(folder / "result"), **variables,
        }  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(Running(process, folder, full_result))
        return self.started[-1]


def wait_for(running: Running, condition: Callable[[str], bool], seconds: float) -> None:
    """Wait until a condition on the log of a program holds.

    Raises:
        TimeoutError: it did not hold in time, or the program ended first.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition(running.log):
            return
        if running.process.poll() is not None:
            raise TimeoutError(f"the program ended first; last line: {_last_line(running.log)}")
        time.sleep(0.1)
    running.end()
    raise TimeoutError(f"the expected output did not appear within {seconds:.0f} s; last line: {_last_line(running.log)}")


def _last_line(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if line.strip()), "none")
