"""Build images into archives in the cache. The key of an archive is a hash of all inputs, so that nothing is built twice."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import progress
from build_error import CannotBuildError
from controlplane.binaries import not_built

from . import bases, debian, package_index
from .engines import Build, Engine
from .recipes import ROOT, Recipe, cache, version

Base = Literal["registry", "debian"]
_KEPT = 2
"""Number of archives of each recipe in the cache: one of the stages has 2.6 GB."""
_TRIES = 3
"""Number of builds if a file is edited during a build; then its state in the image is unknown."""
SBOM_INSIDE = "/opt/venv/share/sbom.cdx.json"


@dataclass(frozen=True)
class Image:
    """A built image: an archive for containerd, Docker and podman, and its bill of materials."""

    recipe: Recipe
    tag: str
    archive: Path

    @property
    def built_as(self) -> str:
        """Return the name in the engine, with the key, so that images of different sources have different names."""
        return f"{self.recipe.title}:{self.archive.parent.name}"

    @property
    def sbom(self) -> Path:
        """Return the path of its bill of materials (CycloneDX)."""
        return self.archive.with_suffix(".cdx.json")

    def exists(self) -> bool:
        """Return whether it is built, by any process."""
        return self.archive.exists()


def locate(recipe: Recipe, base: Base, tag: str, epoch: int | None = None) -> Image:
    """Return where an image of the present sources is, built or not.

    Raises:
        CannotBuildError: the base is one of a registry, and not pinned.
    """
    identity = debian.identity() if base == "debian" else json.dumps(bases.pinned(), sort_keys=True)
    if epoch is not None:
        identity = f"{identity} {epoch} {revision()}"
    folder = cache() / recipe.key(identity, tag)
    return Image(recipe, f"{recipe.title}:{tag}", folder / f"{recipe.name}.tar")


def find(recipe: Recipe, base: Base, tag: str) -> Image:
    """Return an image of the present sources. Nothing is built here.

    Raises:
        CannotBuildError: the base is one of a registry, and not pinned.
        NotBuiltError: the image is not there.
    """
    image = locate(recipe, base, tag)
    if not image.exists():
        target = "make containers" if (base, tag) == ("debian", "test") else build_command(image, base)
        raise not_built([f"image {image.tag}"], target)
    return image


def build_command(image: Image, base: Base) -> str:
    """Return the command that builds an image."""
    return f"python hack/images build {image.recipe.name} --base {base} --tag {image.tag.rpartition(':')[2]}"


def build(recipe: Recipe, base: Base, tag: str, engine: Engine, *, source: str = "", epoch: int | None = None) -> Image:
    """Build an image, unless it has been built.

    Args:
        recipe: what to build.
        base: what it is built on.
        tag: its tag.
        engine: what builds it.
        source: where the sources are published; may be empty.
        epoch: time of all files and layers, in seconds, so that the same sources make the same image.

    Raises:
        CannotBuildError: something that it needs is not there, or the engine failed.
    """
    if (image := locate(recipe, base, tag, epoch)).exists():
        return image
    with _only_one(cache()):
        if (image := locate(recipe, base, tag, epoch)).exists():
            return image
        with progress.step(f"building image {image.tag}", f"image-{recipe.name}"):
            return _make(image, base, engine, source, epoch)


def bases_of(base: Base) -> dict[str, str]:
    """Return what images are built on, by the build arguments of the Containerfiles: references by digest, or Debian packages.

    Raises:
        CannotBuildError: the base is one of a registry, and not pinned.
    """
    return debian.descriptions() if base == "debian" else bases.pinned()


def published_source() -> str:
    """Return the public address of the sources, or an empty string if git has none."""
    words = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    address = urlsplit(subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip())
    return address.geturl() if address.scheme == "https" and not address.username and "." in (address.hostname or "") else ""


def revision() -> str:
    """Return the commit that is checked out, with ``-modified`` if the files differ from it."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=-modified"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _make(image: Image, base: Base, engine: Engine, source: str, epoch: int | None) -> Image:
    arguments = debian.make(engine) if base == "debian" else bases.pinned()
    for _ in range(_TRIES):
        with tempfile.TemporaryDirectory() as scratch:
            engine.build(_build(image, arguments, package_index.secrets(Path(scratch)), source, epoch))
        before, image = image, locate(image.recipe, base, image.tag.rpartition(":")[2], epoch)
        if image == before:
            _save(image, engine)
            return image
    raise CannotBuildError(
        f"{image.tag}: its sources changed during each of {_TRIES} builds; build it again without editing them"
    )


def _save(image: Image, engine: Engine) -> None:
    image.archive.parent.mkdir(parents=True, exist_ok=True)
    part = image.archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    engine.save(image.built_as, image.tag, part)
    image.sbom.write_text(engine.read(image.built_as, SBOM_INSIDE), encoding="utf-8")
    part.rename(image.archive)
    _forget_older(image, engine)


def _build(image: Image, arguments: Mapping[str, str], secrets: Mapping[str, Path], source: str, epoch: int | None) -> Build:
    about = {"version": version(), "revision": revision(), **({"source": source} if source else {})}
    labels = {f"org.opencontainers.image.{name}": text for name, text in about.items()}
    arguments = {**arguments, **dict(image.recipe.arguments)}
    return Build(ROOT / image.recipe.containerfile, ROOT, image.built_as, arguments, secrets, labels, epoch)


def _forget_older(image: Image, engine: Engine) -> None:
    archives = sorted(cache().glob(f"*/{image.archive.name}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[_KEPT:]:
        engine.forget(Image(image.recipe, image.tag, archive).built_as)
        shutil.rmtree(archive.parent)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
