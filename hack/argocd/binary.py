"""Building the command, once for each state of the module and each Go, beside the programs of the test control plane."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from controlplane.binaries import CannotBuildError, compile_program, go_is_installed, not_built, only_one
from controlplane.programs import Program

MODULE = Path(__file__).parent
_PATH = "github.com/argoproj/argo-cd/v3"
# An absolute folder stands for itself: this module is not one of the control plane's.
ARGOCD = Program("argocd", str(MODULE), _PATH, f"{_PATH}/cmd")


def locate() -> Path:
    """Where the command of this checkout is, built or not.

    Raises:
        CannotBuildError: without Go nobody knows which build is meant.
    """
    if not go_is_installed():
        raise CannotBuildError(
            "go is not installed: Argo CD's command is built from its Go module, and go 1.26 or later builds it"
        )
    version = subprocess.run(["go", "env", "GOVERSION"], cwd=MODULE, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(version.strip().encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "finetune-operator" / "argocd" / digest.hexdigest()[:16] / ARGOCD.name


def find() -> Path:
    """Return the command of this checkout. Nothing is built here.

    Raises:
        CannotBuildError: Go is not installed.
        NotBuiltError: the command is not there.
    """
    command = locate()
    if not command.exists():
        raise not_built([ARGOCD.name], "make controlplane")
    return command


def build(nice: int = 0) -> Path:
    """Build the command if it is missing; a second build waits for the first.

    Args:
        nice: how far the build leaves the processor to others, 0 to 19.

    Raises:
        CannotBuildError: Go is not installed, or the command does not compile.
    """
    command = locate()
    if not command.exists():
        with only_one(command.parent):
            if not command.exists():
                compile_program(ARGOCD, command, nice)
    return command
