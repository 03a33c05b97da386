"""``hack/crdlint``, the API server's own validation as a program: built once for each state of its sources, kept outside the tree."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import progress

from .binaries import CannotBuildError, compile_program, go_is_installed, not_built, only_one
from .programs import Program

CRDLINT = Program("crdlint", "crdlint", "k8s.io/apiextensions-apiserver", ".", Path(__file__).resolve().parents[1])


def locate() -> Path:
    """Return where the program of this checkout is, built or not.

    Raises:
        CannotBuildError: without Go nobody knows which build is meant.
    """
    if not go_is_installed():
        raise CannotBuildError("go is not installed: crdlint is built from Go modules, and go 1.26 or later builds it")
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, check=True).stdout
    sources = [(CRDLINT.folder / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    digest = hashlib.sha256(b"\0".join([go, *sources])).hexdigest()[:16]
    return progress.cache() / f"crdlint-{digest}"


def find() -> Path:
    """Return the program of this checkout. Nothing is built here.

    Raises:
        CannotBuildError: Go is not installed.
        NotBuiltError: the program is not there.
    """
    binary = locate()
    if not binary.exists():
        raise not_built([CRDLINT.name], "make controlplane")
    return binary


def build(nice: int = 0) -> Path:
    """Build the program if it is missing; a second build waits for the first.

    Raises:
        CannotBuildError: Go is not installed, or the program does not compile.
    """
    binary = locate()
    with only_one(progress.cache() / CRDLINT.name):
        if not binary.exists():
            compile_program(CRDLINT, binary, nice)
    return binary
