"""The definition of TrainJob from each release of Kubeflow Trainer."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import progress
from build_error import CannotBuildError
from controlplane.binaries import find, not_built
from controlplane.programs import GENERATIONS

HERE = Path(__file__).parent
MODULE = "github.com/kubeflow/trainer/v2"
DEFINITION = "trainjobs.trainer.kubeflow.org"
ONLY_DEFINED = {"2.0": "v2.0.0", "2.2": "v2.2.1"}
"""Releases that no control plane runs here. go.sum pins their content."""
RELEASES = ("2.0", "2.1", "2.2", "2.3")


@cache
def definition(release: str) -> dict[str, Any]:
    """Return the CustomResourceDefinition.

    Raises:
        NotBuiltError: it is not on this machine.
    """
    if release in GENERATIONS:
        generation = GENERATIONS[release]
        documents = json.loads(find(generation).manifests(generation.trainer).read_bytes())
        return next(one for one in documents if one["metadata"]["name"] == DEFINITION)
    if (folder := _downloaded(release)) is None:
        raise not_built([f"the definitions of Trainer {release}"], "make controlplane")
    file = folder / "manifests" / "base" / "crds" / "trainer.kubeflow.org_trainjobs.yaml"
    found: dict[str, Any] = yaml.load(file.read_bytes(), yaml.CSafeLoader)
    return found


def is_downloaded(release: str) -> bool:
    """Return whether the Go module of a release is on this machine."""
    return _downloaded(release) is not None


def download(release: str) -> None:
    """Download the Go module of a release into Go's cache.

    Raises:
        CannotBuildError: the module cannot be downloaded, or is not the one of go.sum.
    """
    with progress.step(f"downloading the definitions of Trainer {release}", f"trainer-definitions-{release}"):
        done = _go(release)
        if done.returncode != 0:
            raise CannotBuildError(f"Trainer {release}: go mod download failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def _downloaded(release: str) -> Path | None:
    done = _go(release, GOPROXY="off")
    return Path(json.loads(done.stdout)["Dir"]) if done.returncode == 0 else None


def _go(release: str, **variables: str) -> subprocess.CompletedProcess[str]:
    words = ["go", "mod", "download", "-json", f"{MODULE}@{ONLY_DEFINED[release]}"]
    return subprocess.run(words, cwd=HERE, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
