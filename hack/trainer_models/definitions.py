"""The definition of TrainJob as each release of Kubeflow Trainer ships it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from controlplane.binaries import build
from controlplane.programs import GENERATIONS

HERE = Path(__file__).parent
MODULE = "github.com/kubeflow/trainer/v2"
DEFINITION = "trainjobs.trainer.kubeflow.org"
_ONLY_DEFINED = {"2.0": "v2.0.0", "2.2": "v2.2.1"}
"""Releases that no control plane here runs. go.sum pins what is in them."""
RELEASES = ("2.0", "2.1", "2.2", "2.3")


@cache
def definition(release: str) -> dict[str, Any]:
    """The CustomResourceDefinition.

    Raises:
        subprocess.CalledProcessError: the Go module is not to be had, or is not the one of go.sum.
    """
    if release in GENERATIONS:
        generation = GENERATIONS[release]
        documents = json.loads(build(generation).manifests(generation.trainer).read_bytes())
        return next(one for one in documents if one["metadata"]["name"] == DEFINITION)
    words = ["go", "mod", "download", "-json", f"{MODULE}@{_ONLY_DEFINED[release]}"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=True)
    file = Path(json.loads(done.stdout)["Dir"]) / "manifests" / "base" / "crds" / "trainer.kubeflow.org_trainjobs.yaml"
    found: dict[str, Any] = yaml.load(file.read_bytes(), yaml.CSafeLoader)
    return found
