"""``kubeflow-trainer-api``, one version in each environment, because versions cannot be installed together."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import progress
from controlplane.binaries import not_built

HERE = Path(__file__).parent
RELEASES = ("2.1", "2.3")
"""Releases with a lock file."""


def round_trip(release: str, manifests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return TrainJobs as the models of a release read and write them.

    Raises:
        NotBuiltError: the environment is not there.
        subprocess.CalledProcessError: the models cannot read one of them.
    """
    if not is_made(release):
        raise not_built([f"the environment of kubeflow-trainer-api {release}"], "make controlplane")
    words = [_folder(release) / "bin" / "python", HERE / "round_trip.py"]
    done = subprocess.run(words, input=json.dumps(list(manifests)), stdout=subprocess.PIPE, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def is_made(release: str) -> bool:
    """Return whether the environment of a release is there."""
    return _ready(release).exists()


def make(release: str) -> None:
    """Make the environment of a release outside the checkout, once for each state of its lock.

    Raises:
        subprocess.CalledProcessError: uv cannot install the packages.
    """
    folder, uv = _folder(release), Path(sys.executable).with_name("uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not is_made(release):
            with progress.step(f"installing kubeflow-trainer-api {release}", f"trainer-models-{release}"):
                python = folder / "bin" / "python"
                subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
                lock = HERE / f"{release}.lock"
                subprocess.run([uv, "pip", "sync", "-q", "--require-hashes", "--python", python, lock], check=True)
                _ready(release).touch()


def _folder(release: str) -> Path:
    digest = hashlib.sha256(f"{sys.version}\0".encode() + (HERE / f"{release}.lock").read_bytes()).hexdigest()[:16]
    return progress.cache() / "trainer-models" / f"{release}-{digest}"


def _ready(release: str) -> Path:
    folder = _folder(release)
    return folder.with_name(f"{folder.name}.ready")
