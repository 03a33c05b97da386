"""``finetune`` as a person starts it: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

import pydocs
from stages.conftest import _train

PROGRAM = Path(sys.executable).parent / "finetune"


@dataclass(frozen=True)
class Said:
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
class Desk:
    """A folder that a person works in."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """No terminal, no colours, nothing of this machine's own settings."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}

    def finetune(self, *arguments: str, seconds: float = 240, environment: Mapping[str, str] | None = None) -> Said:
        """Run a command to its end."""
        done = subprocess.run(
            [PROGRAM, *arguments], cwd=self.folder, env={**self.environment, **(environment or {})}, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and go on."""
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


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty folder."""
    return Desk(tmp_path)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A tiny chat model with real weights, tokenizer and chat template; made once for all xdist workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    model = shared / "tiny-model"
    with FileLock(shared / "tiny-model.lock"):
        if not model.exists():
            _train(shared / "tiny-model.unfinished")
            (shared / "tiny-model.unfinished").rename(model)
    return model


@pytest.fixture(scope="session")
def chat_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 chat rows."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    pydocs.write_jsonl(path, pydocs.rows("signature", 120))
    return path


@pytest.fixture(scope="session")
def small(base_model: Path, chat_rows: Path) -> Callable[..., dict[str, Any]]:
    """The specification of a run that takes seconds; sections given are merged over it."""

    def make(**sections: Mapping[str, Any]) -> dict[str, Any]:
        spec: dict[str, dict[str, Any]] = {
            "dataset": {"uri": str(chat_rows)},
            "model": {"uri": str(base_model)},
            "training": {
                "epochs": 1, "effectiveBatchSize": 16, "learningRate": 5e-3, "maxSeqLen": 256, "maxTokensPerGPU": 4096,
                "osft": {"trainable": "targets"},
            },
            "evaluation": {"tasks": [], "baseline": True},
        }  # fmt: skip
        for name, values in sections.items():
            spec[name] = {**spec.get(name, {}), **values}
        return spec

    return make
