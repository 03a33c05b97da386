"""``kubeflow-trainer-api``, a version in each environment: they cannot be installed together, and none belongs to this project."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RELEASES = ("2.1", "2.3")
"""Those with a lock file: requirements with hashes, and no address."""


def round_trip(release: str, manifests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The TrainJobs as the models of a release read and write them.

    Raises:
        subprocess.CalledProcessError: they do not read one of them, or the environment cannot be made.
    """
    words = [_python(release), HERE / "round_trip.py"]
    done = subprocess.run(words, input=json.dumps(list(manifests)), stdout=subprocess.PIPE, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _python(release: str) -> Path:
    """The Python of the release's environment, which is made once for each state of its lock, outside the tree."""
    lock = HERE / f"{release}.lock"
    digest = hashlib.sha256(f"{sys.version}\0".encode() + lock.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator" / "trainer-models"
    cache.mkdir(parents=True, exist_ok=True)
    folder, ready = cache / f"{release}-{digest}", cache / f"{release}-{digest}.ready"
    python, uv = folder / "bin" / "python", Path(sys.executable).with_name("uv")
    with (cache / "lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
            subprocess.run([uv, "pip", "sync", "-q", "--require-hashes", "--python", python, lock], check=True)
            ready.touch()
    return python
