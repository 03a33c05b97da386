"""Build the programs, once for each state of the modules and each version of Go. The cache has nothing else, and CI can keep it."""

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
"""Changed when this module builds other programs from the same modules."""
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class NotBuiltError(RuntimeError):
    """A prerequisite is not built. The message names the target that builds it."""


@dataclass(frozen=True)
class Binaries:
    """The folder that holds the built programs and the manifests that JobSet and Trainer ship."""

    folder: Path

    def path(self, program: Program) -> Path:
        """Return the path of a program. The folder ``KUBEBUILDER_ASSETS`` has precedence, as in other tools."""
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if assets and program.name in ASSETS and (Path(assets) / program.name).exists():
            return Path(assets) / program.name
        return self.folder / program.name

    def manifests(self, program: Program) -> Path:
        """Return the path of the manifests of a controller."""
        return self.folder / "manifests" / f"{program.name}.json"

    def has(self, generation: Generation | None) -> bool:
        """Return whether everything for a control plane of this generation is built."""
        return not self.missing(generation)

    def missing(self, generation: Generation | None) -> list[str]:
        """Return the names of missing programs and manifests for such a control plane."""
        wanted = {program.name: self.path(program) for program in programs_of(generation)}
        for program in with_manifests(generation):
            wanted[f"the manifests of {program.name}"] = self.manifests(program)
        return [name for name, path in wanted.items() if not path.exists()]


def go_is_installed() -> bool:
    """Return whether Go is installed."""
    return shutil.which("go") is not None


def locate(modules: Path | None = None, of: str = "controlplane") -> Binaries:
    """Return the folder of the programs of this checkout, built or not.

    Args:
        modules: the wrapper modules that pin them; without it those of the control plane.
        of: name of the folder in the cache.

    Raises:
        CannotBuildError: Go is not installed, and its version is a part of the path.
    """
    modules = modules or MODULES
    if not go_is_installed():
        raise CannotBuildError("go: not installed; install Go 1.26 or later, which builds the control plane")
    here = min(modules.iterdir())  # a module may require another version of Go
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
    """Return the error that names what is not built, and the target that builds it."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return NotBuiltError(f"{missing[0]}{more}: not built from the present sources; run {target}")


def build(generation: Generation | None, nice: int = 0) -> Binaries:
    """Build missing programs one by one. An interrupted build is resumed, and a second one waits for the first.

    Args:
        generation: release of Trainer, or none.
        nice: nice level of the build, 0 to 19.

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
    """Render the manifests of ``program`` if they are missing.

    Raises:
        CannotBuildError: its module cannot be read.
    """
    with only_one(binaries.folder):
        if not binaries.manifests(program).exists():
            with progress.step(f"rendering the manifests of {program.name}", f"manifests-{program.name}"):
                manifests.render(_source(program), binaries.path(KUBECTL), binaries.manifests(program))


def compile_missing(binaries: Binaries, programs: Iterable[Program], nice: int = 0) -> None:
    """Compile missing programs.

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
    """Hold the lock for builds into ``folder`` in this context."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_program(program: Program, target: Path, nice: int) -> None:
    """Build a program, and move it to ``target`` when it is complete.

    Raises:
        CannotBuildError: it does not compile.
    """
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)  # go does not overwrite the part that an interrupted build left
    command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", _link_flags(program), "-o", str(part), program.package]
    with progress.step(f"building {program.name} {program.version}", program.name):
        _go([*(["nice", "-n", str(nice)] if nice else []), *command], program)
        part.rename(target)


def _link_flags(program: Program) -> str:
    """Return flags that omit symbols and set the version of Kubernetes, as its own build scripts do."""
    if program.module != "kubernetes":
        return "-s -w"
    major, minor, _ = program.version.removeprefix("v").split(".", 2)
    facts = {"gitVersion": program.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    settings = (f"-X {package}.{name}={value}" for package in _VERSION_PACKAGES for name, value in facts.items())
    return " ".join(["-s -w", *settings])


def _source(program: Program) -> Path:
    """Return the folder of the module in Go's cache; Go verified it with go.sum."""
    return Path(_go(["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", program.path], program).strip())


def _go(command: list[str], program: Program) -> str:
    done = subprocess.run(command, cwd=program.folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"{program.name}: go cannot build it: {done.stderr.strip()[-2000:]}")
    return done.stdout
