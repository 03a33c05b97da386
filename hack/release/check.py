"""Checking the folder of a release, without a network and without the checkout that it was built from."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import yaml

from images.builds import SBOM_INSIDE

from . import contents, manifests, provenance, sbom
from .contents import Release, ReleasedImage
from .oci import Archive
from .system_packages import OS_RELEASE, STATUS, complete

DEFINITION = "crds/finetuneruns.finetunerun.io.yaml"
_BY_DIGEST = re.compile("@sha256:[0-9a-f]{64}$")
VERSION_ANNOTATION = "finetunerun.io/version"


def faults(folder: Path) -> list[str]:
    """Return a message for everything in the folder that is not as a release states it.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is not what its name promises.
    """
    release = contents.read(folder)
    found = [*_sums(folder), *_distributions(folder, release), *_manifests(folder, release), *_notes(folder, release)]
    found += [
        f"{contents.INDEX}: {argument} is {base}, which has no digest"
        for argument, base in release.bases.items()
        if not release.draft and not _BY_DIGEST.search(base)
    ]
    for name, image in release.images.items():
        found += [f"{name}: {fault}" for fault in _image(folder, release, image)]
        if (folder / image.provenance).read_text(encoding="utf-8") != provenance.statement(folder, release, name):
            found.append(f"{image.provenance}: not the statement about {name} of this release")
    return found


def _sums(folder: Path) -> Iterator[str]:
    lines = (folder / contents.SUMS).read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = set(contents.names(folder))
    for name in sorted(there - listed.keys()):
        yield f"{name}: not in {contents.SUMS}"
    for name, digest in listed.items():
        if name not in there:
            yield f"{name}: in {contents.SUMS}, and not in the folder"
        elif contents.digest_of(folder / name) != digest:
            yield f"{name}: not the digest of {contents.SUMS}"


def _distributions(folder: Path, release: Release) -> Iterator[str]:
    with ZipFile(folder / release.wheel) as wheel:
        metadata = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    information = [text for name, text in _files(folder / release.sdist, only="PKG-INFO") if name.count("/") == 1]
    for name, texts in ((release.wheel, metadata), (release.sdist, information)):
        if [line for text in texts for line in text.splitlines() if line.startswith("Version: ")] != [
            f"Version: {release.version}"
        ]:
            yield f"{name}: the version in its metadata is not {release.version}"


def _manifests(folder: Path, release: Release) -> Iterator[str]:
    texts = dict(_files(folder / release.manifests))
    yield from manifests.faults(
        texts.items(), {name: image.digest for name, image in release.images.items()}, draft=release.draft
    )
    definition = yaml.safe_load(texts.get(f"finetune-manifests-{release.version}/{DEFINITION}", "metadata: {annotations: {}}"))
    if (version := definition["metadata"]["annotations"].get(VERSION_ANNOTATION)) != release.version:
        yield f"{DEFINITION}: annotation {VERSION_ANNOTATION} is {version}, not {release.version}"


def _files(archive: Path, only: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and text of the files of an archive whose name ends in ``only``."""
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile() and member.name.endswith(only) and (file := files.extractfile(member)):
                yield member.name, file.read().decode()


def _notes(folder: Path, release: Release) -> Iterator[str]:
    text = (folder / contents.NOTES).read_text(encoding="utf-8")
    for word in (release.version, release.revision, *(image.digest for image in release.images.values())):
        if word not in text:
            yield f"{contents.NOTES}: does not name {word}"


def _image(folder: Path, release: Release, image: ReleasedImage) -> Iterator[str]:
    with Archive(folder / image.archive) as archive:
        if archive.digest != image.digest:
            yield f"the archive has the digest {archive.digest}, {contents.INDEX} has {image.digest}"
        if wrong := archive.wrong_blobs():
            yield f"the archive is damaged: {', '.join(wrong)}"
            return
        configuration = archive.configuration
        files = archive.read(SBOM_INSIDE, STATUS, OS_RELEASE)
    labels = configuration["config"].get("Labels") or {}
    for label, wanted in (("version", release.version), ("revision", release.revision)):
        if (value := labels.get(f"org.opencontainers.image.{label}")) != wanted:
            yield f"label org.opencontainers.image.{label} is {value}, not {wanted}"
    if missing := [path for path in (SBOM_INSIDE, STATUS, OS_RELEASE) if path not in files]:
        yield f"the image has no {missing[0]}"
        return
    beside = (folder / image.sbom).read_bytes()
    if complete(files[SBOM_INSIDE], files[STATUS], files[OS_RELEASE]) != beside:
        yield f"the packages of the image are not those of {image.sbom}"
    locked = (folder / image.lock).read_text(encoding="utf-8")
    for fault in sbom.faults(json.loads(beside), locked, image.accelerator, configuration["architecture"]):
        yield f"{image.sbom}: {fault}"
