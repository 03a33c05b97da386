"""Building the programs, once for each state of the modules and each Go: the cache holds what CI needs to keep, and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import manifests
from .programs import ASSETS, GENERATIONS, KUBECTL, MODULES, Generation, Program, programs_of

_LAYOUT = "1"
"""Changes when this module builds differently from the same modules."""
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class CannotBuildError(RuntimeError):
    """Go is not installed, or a program does not compile. The message says which."""


@dataclass(frozen=True)
class Binaries:
    """The folder that holds the built programs and the manifests that JobSet and Trainer ship."""

    folder: Path

    def path(self, program: Program) -> Path:
        """Where a program is; a folder ``KUBEBUILDER_ASSETS`` goes first, as for other tools that know it."""
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if assets and program.name in ASSETS and (Path(assets) / program.name).exists():
            return Path(assets) / program.name
        return self.folder / program.name

    def manifests(self, program: Program) -> Path:
        """The manifests that are shipped with a controller."""
        return self.folder / "manifests" / f"{program.name}.json"

    def has(self, generation: Generation | None) -> bool:
        """Whether everything is there that a control plane of this generation needs."""
        wanted = [self.path(program) for program in programs_of(generation)]
        if generation is not None:
            wanted += [self.manifests(program) for program in (generation.jobset, generation.trainer)]
        return all(path.exists() for path in wanted)


def go_is_installed() -> bool:
    """Whether anything can be built."""
    return shutil.which("go") is not None


def locate(modules: Path | None = None, of: str = "controlplane") -> Binaries:
    """Where the programs of this checkout are, built or not.

    Args:
        modules: the wrapper modules that pin them; without it those of the control plane.
        of: what they are for, which names a folder of the cache.

    Raises:
        CannotBuildError: without Go nobody knows which build is meant.
    """
    modules = modules or MODULES
    if not go_is_installed():
        raise CannotBuildError("go is not installed: the control plane is built from Go modules, and go 1.26 or later builds it")
    here = min(modules.iterdir())  # a module may ask for another Go than the one that is installed
    version = subprocess.run(["go", "env", "GOVERSION"], cwd=here, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(f"{_LAYOUT}\0{version.strip()}".encode())
    for path in sorted([*modules.glob("*/go.*"), *modules.glob("*/*.go")]):
        digest.update(b"\0".join([path.relative_to(modules).as_posix().encode(), path.read_bytes(), b""]))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Binaries(cache / "finetune-operator" / of / digest.hexdigest()[:16])


def build(generation: Generation | None, nice: int = 0) -> Binaries:
    """Build what is missing, program by program: an interrupted build goes on where it was, a second one waits.

    Args:
        generation: what is wanted.
        nice: how far the build leaves the processor to others, 0 to 19.

    Raises:
        CannotBuildError: Go is not installed, or a program does not compile.
    """
    binaries = locate()
    if binaries.has(generation):
        return binaries
    compile_missing(binaries, programs_of(generation), nice)
    with only_one(binaries.folder):
        for program in () if generation is None else (generation.jobset, generation.trainer):
            if not binaries.manifests(program).exists():
                manifests.render(_source(program), binaries.path(KUBECTL), binaries.manifests(program))
    return binaries


def compile_missing(binaries: Binaries, programs: Iterable[Program], nice: int = 0) -> None:
    """Compile those of ``programs`` that are not there.

    Raises:
        CannotBuildError: one does not compile.
    """
    with only_one(binaries.folder):
        for program in programs:
            if not binaries.path(program).exists():
                compile_program(program, binaries.folder / program.name, nice)


def build_all(nice: int = 0) -> Binaries:
    """Build both generations."""
    for generation in GENERATIONS.values():
        binaries = build(generation, nice)
    return binaries


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Inside this context no other process builds into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_program(program: Program, target: Path, nice: int) -> None:
    """Build one program, and put it at ``target`` once it is whole.

    Raises:
        CannotBuildError: it does not compile.
    """
    print(f"building {program.name} {program.version} ...", end=" ", flush=True, file=sys.stderr)
    began = time.monotonic()
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)  # go does not overwrite the half of a program that an interrupted build left
    command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", _link_flags(program), "-o", str(part), program.package]
    _go([*(["nice", "-n", str(nice)] if nice else []), *command], program)
    part.rename(target)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


def _link_flags(program: Program) -> str:
    """Without symbols; Kubernetes learns its version, which its own build scripts would tell it."""
    if program.module != "kubernetes":
        return "-s -w"
    major, minor, _ = program.version.removeprefix("v").split(".", 2)
    facts = {"gitVersion": program.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    settings = (f"-X {package}.{name}={value}" for package in _VERSION_PACKAGES for name, value in facts.items())
    return " ".join(["-s -w", *settings])


def _source(program: Program) -> Path:
    """The module's folder in Go's cache; its content was checked against go.sum."""
    return Path(_go(["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", program.path], program).strip())


def _go(command: list[str], program: Program) -> str:
    done = subprocess.run(command, cwd=program.folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"{program.name} cannot be built: go said {done.stderr.strip()[-2000:]}")
    return done.stdout
