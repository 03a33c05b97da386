"""Building a release from the commit that is checked out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import progress
from build_error import CannotBuildError
from images import builds, engines
from images.builds import SBOM_INSIDE, Base
from images.recipes import RECIPES, ROOT, version

from . import contents, manifests, notes, oci, provenance, tar
from .contents import Release, ReleasedImage
from .oci import Archive
from .system_packages import OS_RELEASE, STATUS, complete


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        version: of the release; that of the tree.
        images: names of recipes.
        base: what the images are built on.
        registry: registry and repository that the manifests name before each image; may be empty.
        draft: whether changes that are not committed, another base, and a choice of images are accepted.
    """

    version: str
    images: Sequence[str]
    base: Base = "registry"
    registry: str = ""
    draft: bool = False


def build(request: Request, folder: Path) -> Release:
    """Build the release into ``folder``, which is replaced once everything is built.

    Raises:
        CannotBuildError: the tree is not that of the release, or a step failed.
    """
    changes = _require(request, folder)
    revision, epoch = builds.revision(), int(_git("log", "-1", "--format=%ct"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch, "release")
        made.mkdir()
        with progress.step("building wheel and source distribution", "release-distributions"):
            _distributions(made, epoch)
        images = {RECIPES[name].title: _image(request, name, made, epoch) for name in request.images}
        release = Release(request.version, revision, epoch, request.base, builds.bases_of(request.base), request.draft, images)
        for name, image in images.items():
            (made / image.provenance).write_text(provenance.statement(made, release, name), encoding="utf-8")
        with progress.step("writing manifests and release notes", "release-manifests"):
            _manifests(made, release, request.registry)
            (made / contents.NOTES).write_text(notes.page(release, changes), encoding="utf-8")
        contents.write(made, release)
        if builds.revision() != revision:
            raise CannotBuildError("HEAD: changed while the release was built; build it again")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return release


def _require(request: Request, folder: Path) -> str:
    """Make sure that this tree is that of the release, and return its section of the change log.

    Raises:
        CannotBuildError: it is not.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / contents.INDEX).exists():
        raise CannotBuildError(f"{folder}: is not the folder of a release; give a new one with --folder")
    if request.version != version():
        raise CannotBuildError(
            f"VERSION: {request.version} is not the version of this tree, {version()}; set __version__ in"
            " operator/finetune_operator/__init__.py, run hack/generate.py, and commit"
        )
    change_log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if request.draft:
        return notes.section(change_log, notes.UNRELEASED)
    if changed := _git("status", "--porcelain"):
        raise CannotBuildError(f"{changed.splitlines()[0][3:]}: changed and not committed; commit it, or set DRAFT=1")
    if set(request.images) != set(RECIPES):
        raise CannotBuildError(f"IMAGES: a release has all images ({', '.join(RECIPES)}); remove IMAGES, or set DRAFT=1")
    if request.base != "registry":
        raise CannotBuildError(f"BASE: images of a release are not built on {request.base}; remove BASE, or set DRAFT=1")
    return notes.section(change_log, request.version)


def _distributions(folder: Path, epoch: int) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"pyproject.toml: hatchling failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def _image(request: Request, name: str, folder: Path, epoch: int) -> ReleasedImage:
    recipe, engine = RECIPES[name], engines.find()
    image = builds.build(recipe, request.base, request.version, engine, source=builds.published_source(), epoch=epoch)
    (folder / "images").mkdir(exist_ok=True)
    (folder / "locks").mkdir(exist_ok=True)
    stem = f"images/{recipe.title}-{request.version}"
    sbom, archive, lock = f"{stem}.cdx.json", f"{stem}.oci.tar", f"locks/{Path(recipe.lock).name}"
    shutil.copyfile(ROOT / recipe.lock, folder / lock)
    with progress.step(f"compressing image {recipe.title}", f"release-image-{name}"):
        digest = oci.write(image.archive, folder / archive, f"docker.io/library/{recipe.title}:{request.version}", epoch)
    with Archive(folder / archive) as read:
        files = read.read(SBOM_INSIDE, STATUS, OS_RELEASE)
    try:
        (folder / sbom).write_bytes(complete(files[SBOM_INSIDE], files[STATUS], files[OS_RELEASE]))
    except KeyError as error:
        raise CannotBuildError(f"{recipe.title}: the image has no {error.args[0]}; build it on a base of Debian") from error
    accelerator = dict(recipe.arguments).get("ACCELERATOR", "")
    return ReleasedImage(archive, digest, sbom, f"{stem}.provenance.json", lock, accelerator)


def _manifests(folder: Path, release: Release, registry: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        manifests.write(ROOT, Path(scratch), {name: image.digest for name, image in release.images.items()}, registry)
        tar.write(Path(scratch), folder / release.manifests, release.epoch, f"finetune-manifests-{release.version}")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"git {words[0]} failed: {done.stderr.strip()}; a release is built from a clone")
    return done.stdout.rstrip("\n")
