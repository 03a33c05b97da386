"""Building the programs, once for each state of the modules and each Go: the cache holds what CI needs to keep, and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import progress
from build_error import CannotBuildError

from . import manifests
from .programs import ASSETS, GENERATIONS, KUBECTL, MODULES, Generation, Program, programs_of, with_manifests

_LAYOUT = "1"
"""Changes when this module builds differently from the same modules."""
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class NotBuiltError(RuntimeError):
    """Something that a set-up target builds is not there. The message names the target."""


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
        return not self.missing(generation)

    def missing(self, generation: Generation | None) -> list[str]:
        """Return the names of the programs and manifests that such a control plane needs and that are not there."""
        wanted = {program.name: self.path(program) for program in programs_of(generation)}
        for program in with_manifests(generation):
            wanted[f"the manifests of {program.name}"] = self.manifests(program)
        return [name for name, path in wanted.items() if not path.exists()]


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


def find(generation: Generation | None) -> Binaries:
    """Return the programs of this checkout, all of them built. Nothing is built here.

    Raises:
        CannotBuildError: Go is not installed.
        NotBuiltError: one is not there.
    """
    binaries = locate()
    if missing := binaries.missing(generation):
        raise not_built(missing, "make controlplane")
    return binaries


def not_built(missing: Sequence[str], target: str) -> NotBuiltError:
    """Return the error that says what is not built, and which target builds it."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return NotBuiltError(f"{missing[0]}{more}: not built from the present sources; run {target}")


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
    for program in with_manifests(generation):
        render_missing(binaries, program)
    return binaries


def render_missing(binaries: Binaries, program: Program) -> None:
    """Render the manifests that ``program`` ships, unless they are there.

    Raises:
        CannotBuildError: its module cannot be read.
    """
    with only_one(binaries.folder):
        if not binaries.manifests(program).exists():
            with progress.step(f"rendering the manifests of {program.name}", f"manifests-{program.name}"):
                manifests.render(_source(program), binaries.path(KUBECTL), binaries.manifests(program))


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
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)  # go does not overwrite the half of a program that an interrupted build left
    command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", _link_flags(program), "-o", str(part), program.package]
    with progress.step(f"building {program.name} {program.version}", program.name):
        _go([*(["nice", "-n", str(nice)] if nice else []), *command], program)
        part.rename(target)


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
