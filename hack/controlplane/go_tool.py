"""A program of one Go module, built once for each state of its sources and each version of Go."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import progress
from build_error import CannotBuildError

from .binaries import compile_program, go_is_installed, not_built, only_one
from .programs import Program


@dataclass(frozen=True)
class GoTool:
    """A program that is kept outside the checkout.

    Attributes:
        program: what is built.
        origin: what it is built from, as a clause of messages.
        path: its path, from the output of ``go env GOVERSION``.
    """

    program: Program
    origin: str
    path: Callable[[str], Path]

    @classmethod
    def of_module(cls, module: Path, package: str, name: str, origin: str) -> GoTool:
        """Return the program ``name`` of a ``package``, built from the module in the folder ``module`` outside of the control plane's."""
        program = Program(name, str(module), package.partition("/cmd")[0], package)

        def path(go: str) -> Path:
            digest = hashlib.sha256(go.strip().encode())
            for file in ("go.mod", "go.sum"):
                digest.update((module / file).read_bytes())
            return progress.cache() / name / digest.hexdigest()[:16] / name

        return cls(program, origin, path)

    def locate(self) -> Path:
        """Return where the program of this checkout is, built or not.

        Raises:
            CannotBuildError: Go is not installed, and its version is a part of the path.
        """
        if not go_is_installed():
            raise CannotBuildError(f"go is not installed: {self.origin}, and go 1.26 or later builds it")
        command = ["go", "env", "GOVERSION"]
        return self.path(subprocess.run(command, cwd=self.program.folder, capture_output=True, text=True, check=True).stdout)

    def find(self) -> Path:
        """Return the program of this checkout. Nothing is built here.

        Raises:
            CannotBuildError: Go is not installed.
            NotBuiltError: the program is not there.
        """
        binary = self.locate()
        if not binary.exists():
            raise not_built([self.program.name], "make controlplane")
        return binary

    def build(self, nice: int = 0) -> Path:
        """Build the program if it is missing; a second build waits for the first.

        Args:
            nice: the niceness of the build, 0 to 19.

        Raises:
            CannotBuildError: Go is not installed, or the program does not compile.
        """
        binary = self.locate()
        if not binary.exists():
            with only_one(progress.cache() / self.program.name):
                binary.parent.mkdir(parents=True, exist_ok=True)
                if not binary.exists():
                    compile_program(self.program, binary, nice)
        return binary
