"""A folder that a person works in, and ``finetune`` as that person starts it: a process of its own."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROGRAM = Path(sys.executable).parent / "finetune"


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, Any]:
        """What ``-o json`` printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class Workdir:
    """A folder that a person works in."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """No terminal, no colours, nothing of this machine's own settings."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}

    def finetune(self, *arguments: str, seconds: float = 240, environment: Mapping[str, str] | None = None) -> CommandResult:
        """Run a command to its end."""
        done = subprocess.run(
            [PROGRAM, *arguments], cwd=self.folder, env={**self.environment, **(environment or {})}, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command without waiting for its end."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, spec: Mapping[str, Any], name: str = "demo", file: str = "run.yaml", **metadata: Any) -> Path:
        """Write a FineTuneRun into the folder."""
        document = {
            "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": name, **metadata}, "spec": spec,
        }  # fmt: skip
        path = self.folder / file
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    @property
    def workspace(self) -> Path:
        """The workspace that local runs share."""
        return self.folder / ".finetune/volumes/default/workspace"

    def run_folder(self, name: str = "demo") -> Path:
        """The folder of the only run of that name."""
        (found,) = (self.workspace / "runs").glob(f"{name}-*")
        return found


def status_of(workdir: Workdir, name: str = "demo") -> dict[str, Any]:
    """The status of a run."""
    result = workdir.finetune("get", name, "-o", "json")
    assert result.code == 0, result.err
    status: dict[str, Any] = result.object["status"]
    return status


def done_stages(workdir: Workdir, name: str = "demo") -> list[str]:
    """The stages that did their work, as often as they did, in order."""
    files = [workdir.run_folder(name) / part / "pipeline_log.txt" for part in (".", "training")]
    lines = sorted(
        (line for file in files if file.exists() for line in file.read_text().splitlines()), key=lambda line: line[:20]
    )
    words = [line.split(" ", 1)[1] for line in lines]
    return [line.split(":")[0] for line in words if not re.match(r"\w+: (Interrupted|Crashed|Superseded)", line)]


def wait_for(look: Callable[[], bool], seconds: float = 120) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state_of(workdir: Workdir, stage: str) -> str | None:
    """The state of a stage, read beside the running command."""
    try:
        with sqlite3.connect(f"file:{workdir.folder}/.finetune/store.db?mode=ro", uri=True) as database:
            del database
    except sqlite3.OperationalError:
        return None
    result = workdir.finetune("get", "demo", "-o", "json")
    if result.code != 0:
        return None
    stages = {entry["name"]: entry["state"] for entry in result.object.get("status", {}).get("stages", [])}
    return stages.get(stage)


def stage_processes(workdir: Workdir) -> list[int]:
    """The processes that run stages for a folder."""
    return [
        int(json.loads(record.read_text())["pid"])
        for record in (workdir.folder / ".finetune/pods").glob("*/started.json")
        if not record.with_name("exit.json").exists()
    ]
