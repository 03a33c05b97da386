"""The groups of prerequisites: the steps of each, and what keeps a machine from building it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import progress
from argocd.binary import ARGOCD
from bootstrap import state
from compat import environments as compat
from compat.sets import IN_CI
from controlplane import binaries
from controlplane.binaries import Binaries, go_is_installed
from controlplane.crdlint import CRDLINT
from controlplane.programs import BASE, GENERATIONS, Program, with_manifests
from images import builds, engines, packages, recipes
from node import machine
from node import programs as node_programs
from oras.binary import ORAS
from registry.binary import REGISTRY
from s3.binary import VERSITYGW
from trainer_models import definitions, environments

ROOT = Path(__file__).resolve().parents[2]
IMAGES = (recipes.OPERATOR, recipes.STAGES)
IMAGE_BASE: builds.Base = "debian"
IMAGE_TAG = "test"
_NOT_IMPORTED = r"/site-packages/(.*/tests?/|transformers/models/|kubernetes/aio/|databricks/|pip/)"
"""Modules that few or no processes of tests import: a third of the source code, which an import compiles if necessary."""


@dataclass(frozen=True)
class Step:
    """One prerequisite.

    Attributes:
        key: names it in messages and in the record of durations.
        is_done: whether it is there already.
        make: makes it, and prints one step of progress.
    """

    key: str
    is_done: Callable[[], bool]
    make: Callable[[], object]


@dataclass(frozen=True)
class Group:
    """The prerequisites of one target of the Makefile.

    Attributes:
        blocker: why this machine cannot make it, as a sentence; the tests that need it are skipped there.
        steps: in the order in which they are made. They are called only where there is no blocker.
    """

    blocker: Callable[[], str | None]
    steps: Callable[[int], Iterator[Step]]


def _no_blocker() -> str | None:
    return None


def _without_go() -> str | None:
    return None if go_is_installed() else "go is not installed: tests on the real control plane are skipped"


def _without_containers() -> str | None:
    if os.geteuid() != 0:
        return "containers need root: tests on a node and in images are skipped"
    missing = [name for name in ("go", "apt-get") if not shutil.which(name)]
    return f"{' and '.join(missing)} cannot be found: tests on a node and in images are skipped" if missing else None


def _byte_code(_nice: int) -> Iterator[Step]:
    """Byte code for the processes that tests start, which may not write any."""
    folder, mark = ROOT / ".venv", ROOT / ".venv" / ".compiled"
    made_from = repr(state.read(folder))

    def make() -> None:
        with progress.step("compiling Python packages to byte code", "byte-code"):
            # A few packages have files that are not valid Python and are never imported, so the exit code has no meaning.
            words = ("-qq", "-j", "0", "-x", _NOT_IMPORTED, sysconfig.get_path("purelib"))
            subprocess.run([sys.executable, "-m", "compileall", *words], check=False)
            mark.write_text(made_from, encoding="utf-8")

    yield Step("byte-code", lambda: mark.exists() and mark.read_text(encoding="utf-8") == made_from, make)


def _control_plane(nice: int) -> Iterator[Step]:
    built = binaries.locate()
    shipping = [program for generation in GENERATIONS.values() for program in with_manifests(generation)]
    yield from _compiled(built, (*BASE, *shipping), nice)
    for program in shipping:
        yield Step(f"manifests-{program.name}", built.manifests(program).exists, partial(binaries.render_missing, built, program))
    for tool in (CRDLINT, ARGOCD, ORAS, REGISTRY, VERSITYGW):
        yield Step(tool.program.name, tool.locate().exists, partial(tool.build, nice))
    for release in environments.RELEASES:
        yield Step(f"trainer-models-{release}", partial(environments.is_made, release), partial(environments.make, release))
    for release in definitions.ONLY_DEFINED:
        done = partial(definitions.is_downloaded, release)
        yield Step(f"trainer-definitions-{release}", done, partial(definitions.download, release))


def _containers(nice: int) -> Iterator[Step]:
    yield Step("node-packages", lambda: not machine.missing_packages(), partial(_install, "node", machine.install_packages))
    yield Step("images-packages", lambda: not packages.missing(), partial(_install, "images", packages.install))
    yield from _compiled(binaries.locate(node_programs.MODULES, "node"), node_programs.PROGRAMS, nice)
    for recipe in IMAGES:
        yield Step(f"image-{recipe.name}", lambda recipe=recipe: image(recipe).exists(), partial(_build_image, recipe))  # type: ignore[misc]


def _compat(_nice: int) -> Iterator[Step]:
    for name in IN_CI:
        yield Step(f"compat-{name}", partial(compat.is_made, name), partial(compat.make, name))


def _without_compat() -> str | None:
    reason = compat.blocker()
    return f"{reason}: tests with the libraries of training images are skipped" if reason else None


def image(recipe: recipes.Recipe) -> builds.Image:
    """Return the image that tests use, of the present sources, built or not."""
    return builds.locate(recipe, IMAGE_BASE, IMAGE_TAG)


GROUPS = {
    "bytecode": Group(_no_blocker, _byte_code),
    "controlplane": Group(_without_go, _control_plane),
    "containers": Group(_without_containers, _containers),
    "compat": Group(_without_compat, _compat),
}


def _compiled(built: Binaries, programs: tuple[Program, ...], nice: int) -> Iterator[Step]:
    for program in programs:
        yield Step(program.name, built.path(program).exists, partial(binaries.compile_missing, built, [program], nice))


def _install(folder: str, install: Callable[[], list[str]]) -> None:
    with progress.step(f"installing the packages of hack/{folder}/packages.txt with apt-get", f"{folder}-packages"):
        install()


def _build_image(recipe: recipes.Recipe) -> None:
    builds.build(recipe, IMAGE_BASE, IMAGE_TAG, engines.find(), source=builds.published_source())
