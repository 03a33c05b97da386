"""Models from a registry: images with the files below ``/models``, and artifacts with one file in each layer."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.codec import digest as digest_of
from finetune_contract.documents import PIPELINES_PULL_SECRET_VARIABLE, PULL_SECRET_VARIABLE, Scalar
from finetune_contract.uris import ImageReference
from finetune_stages.sdk import Context, Seal, StageError, seal_directory
from finetune_stages.sources.background import folder_size
from finetune_stages.sources.cache import store_entry
from finetune_stages.sources.download_limits import require_size
from finetune_stages.sources.downloads import RemoteFile, download_all, remove_marks
from finetune_stages.sources.layers import File, FileTable
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import ProgressCounter, report_note
from finetune_stages.sources.registry import INDEXES, MANIFESTS, Registry
from finetune_stages.sources.registry_login import login_for
from finetune_stages.sources.work_folder import work_folder

from .check import Requirements, check_settings, check_weights
from .download import Listing, kept_entry, obtain_listed, ranges, remove_ranges
from .files import require_files, settings, weights
from .numbers import WeightReaders
from .obtain import Obtained, entry_path, open_to_group, require_room

_IMAGE_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_TITLE, _UNPACK = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
_FILE_PATH = "org.cncf.model.filepath"
_TAR = re.compile(r"\.tar([.+](gzip|gz|zstd))?$")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_LAYERS = 10_000
_PUSH = "build and push the image again"


@dataclass(frozen=True)
class Layer:
    """A blob of an image.

    Attributes:
        title: name of the one file that it is; ``None`` for an archive.
    """

    digest: str
    size: int
    title: str | None


@dataclass(frozen=True)
class Image:
    """The manifest of an image.

    Attributes:
        digest: of what the reference means, which may be an index.
        top: the directory with the model: ``models`` in a container image, empty in an artifact.
    """

    digest: str
    top: str
    layers: tuple[Layer, ...]


def obtain(context: Context, reference: ImageReference, requirements: Requirements) -> Obtained:
    """Store the model of an image in the cache, under the digest of its manifest.

    If the registry is unreachable and the reference has a digest that is in the cache, the cache is used.

    Raises:
        StageError: ``ModelNotFound``, ``ModelForbidden``, ``ModelUnreachable``, ``ModelUntrusted``, ``ModelIncomplete``,
            ``ModelCorrupt``, ``ModelUnsupported``, ``RemoteCode``, ``ChatTemplateMissing``, ``ChatTemplateInvalid``, ``WorkspaceFull``.
    """
    with _registry(reference) as registry:
        try:
            image = _find(context, registry, reference)
        except StageError as error:
            kept = _kept(context, reference, reference.digest) if error.reason is MODEL.unreachable else None
            if kept is None:
                raise
            print(f"{error.message} Using it from the cache.")
            return kept
        kept = _kept(context, reference, image.digest)
        if kept:
            return kept
        files = {_name(layer.title): layer for layer in image.layers if layer.title is not None}
        if len(files) == len(image.layers) and files:
            return obtain_listed(context, _listing(registry, reference, image, files), requirements)
        return _Layers(context, registry, reference, image, requirements).obtain()


def is_unchanged(context: Context, reference: ImageReference, digest: Scalar | None) -> bool:
    """Return whether a reference still means the image with this digest. The registry is asked unless it has a digest.

    Raises:
        StageError: The registry is unreachable, or the image no longer exists.
    """
    if reference.digest:
        return reference.digest == digest
    report_note(context, f"looking up {reference.shown}")
    with _registry(reference) as registry:
        return registry.manifest(reference.tag or "latest")[0] == digest


def _registry(reference: ImageReference) -> Registry:
    content = os.environ.get(PULL_SECRET_VARIABLE) or os.environ.get(PIPELINES_PULL_SECRET_VARIABLE)
    return Registry(reference, login_for(reference, content, MODEL), MODEL)


def _key(digest: str) -> str:
    return digest_of(["oci", digest])


def _kept(context: Context, reference: ImageReference, digest: str | None) -> Obtained | None:
    if digest is None:
        return None
    seal = kept_entry(context, _key(digest), reference.shown)
    return _obtained(context, reference, digest, seal, reused=True) if seal else None


def _obtained(context: Context, reference: ImageReference, digest: str, seal: Seal, *, reused: bool) -> Obtained:
    return Obtained(entry_path(context, _key(digest)), seal, reference.shown, digest, reused, {"digest": digest})


def _find(context: Context, registry: Registry, reference: ImageReference) -> Image:
    report_note(context, f"looking up {reference.shown}")
    digest, content = registry.manifest(reference.digest or reference.tag or "latest")
    manifest = content
    if content.get("mediaType") in INDEXES or "manifests" in content:
        _, manifest = registry.manifest(_of_platform(content, reference))
    if manifest.get("schemaVersion") != 2 or manifest.get("mediaType", MANIFESTS[0]) not in MANIFESTS:
        raise _unusable(reference, "its manifest is neither of the OCI image specification nor of Docker, version 2", _PUSH)
    kind = _dict(manifest.get("config")).get("mediaType")
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers or len(layers) > _MOST_LAYERS:
        raise _unusable(reference, f"its manifest has no layers, or more than {_MOST_LAYERS:,}", _PUSH)
    is_image = kind in _IMAGE_CONFIGS
    found = tuple(_layer(layer, is_image, reference) for layer in layers)
    _require_one_of_a_name(found, reference)
    return Image(digest, "models" if is_image else "", found)


def _require_one_of_a_name(layers: Sequence[Layer], reference: ImageReference) -> None:
    """Check that no two layers are different files of one name: nothing defines which of them counts.

    Raises:
        StageError: ``ModelNotFound``.
    """
    named: dict[str, str] = {}
    for layer in layers:
        if layer.title is not None and named.setdefault(_name(layer.title), layer.digest) != layer.digest:
            raise _unusable(reference, f"its manifest has two layers with the name {layer.title[:200]!a} and different contents")


def _of_platform(index: Mapping[str, Any], reference: ImageReference) -> str:
    """Return the digest of the image for linux/amd64, or of the only one. Attestations are no images."""
    found: dict[str, str] = {}
    for entry in _dicts(index.get("manifests")):
        platform = _dict(entry.get("platform"))
        name = f"{platform.get('os', 'linux')}/{platform.get('architecture', 'amd64')}"
        digest = entry.get("digest")
        if name != "unknown/unknown" and isinstance(digest, str) and _DIGEST.fullmatch(digest):
            found.setdefault(name, digest)
    if "linux/amd64" in found:
        return found["linux/amd64"]
    if len(found) == 1:
        return next(iter(found.values()))
    there = f"images for {', '.join(sorted(found))}, and none for linux/amd64" if found else "no images"
    raise _unusable(reference, f"its index has {there}", "push an image for linux/amd64, or set another image")


def _layer(layer: Any, is_image: bool, reference: ImageReference) -> Layer:
    digest, size = (layer.get("digest"), layer.get("size")) if isinstance(layer, dict) else (None, None)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or type(size) is not int or size < 0:
        raise _unusable(reference, "its manifest has a layer without a SHA-256 digest or without a size", _PUSH)
    annotations = _dict(layer.get("annotations"))
    kind = str(layer.get("mediaType", ""))
    title = annotations.get(_TITLE, annotations.get(_FILE_PATH))
    if isinstance(title, str) and not is_image and not _is_path(_name(title)):
        raise _unusable(
            reference, f"its manifest has a layer with the name {title[:200]!a}, which is not a path below a directory", _PUSH
        )
    packed = annotations.get(_UNPACK) == "true" or (_TITLE not in annotations and _TAR.search(kind))
    return Layer(digest, size, None if is_image or packed or not isinstance(title, str) else title)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _name(title: str) -> str:
    """Return the name of a file without the folders that all tools put before it in other ways."""
    return title.removeprefix("./").removeprefix("/")


def _is_path(name: str) -> bool:
    return "\0" not in name and all(part not in ("", ".", "..") and len(os.fsencode(part)) < 256 for part in name.split("/"))


def _unusable(reference: ImageReference, words: str, remedy: str = "set an image with a model below /models") -> StageError:
    return StageError(MODEL.not_found, f"{MODEL.field}: {reference.shown}: {words}; {remedy}.")


def _remote(registry: Registry, layer: Layer, target: Path) -> RemoteFile:
    return RemoteFile(layer.size, layer.digest, target, lambda first, end: registry.read(layer.digest, first, end))


def _listing(registry: Registry, reference: ImageReference, image: Image, files: Mapping[str, Layer]) -> Listing:
    """Return the listing of an artifact: every layer is one file, so that the small ones are checked before the others."""
    directory = model_directory(list(files), "", reference)
    start = f"{directory}/" if directory else ""
    below = {name.removeprefix(start): layer for name, layer in files.items() if name.startswith(start)}
    note: dict[str, Scalar] = {"source": reference.shown, "digest": image.digest}
    return Listing(
        reference.shown, registry.server, _key(image.digest), {name: layer.size for name, layer in below.items()}, note,
        {"digest": image.digest}, ranges(lambda name, target: _remote(registry, below[name], target), reference.shown), remove_ranges, image.digest,
        {name: layer.digest.removeprefix("sha256:") for name, layer in below.items()},
    )  # fmt: skip


@dataclass(frozen=True)
class _Layers:
    """A model whose files are in archives, so that all of them are downloaded before one is known."""

    context: Context
    registry: Registry
    reference: ImageReference
    image: Image
    requirements: Requirements

    def obtain(self) -> Obtained:
        key, name = _key(self.image.digest), self.reference.shown
        resumed = f"download-{key[:12]}"
        with work_folder(self.context, resume=resumed) as scratch:
            blobs, store, folder = scratch / resumed, scratch / "files", scratch / "model"
            for path in (blobs, store, folder):
                path.mkdir(exist_ok=True)
            unpacked = 0

            def reserve(size: int) -> None:
                nonlocal unpacked
                unpacked += size
                require_size(unpacked, MODEL, name)
                require_room(self.context, size, name)

            table = FileTable(name, MODEL, self.image.top, store, reserve)
            self._unpack(self._download(blobs), table)
            seal = self._publish(table, folder)
            store_entry(folder, entry_path(self.context, key))
        return _obtained(self.context, self.reference, self.image.digest, seal, reused=False)

    def _download(self, blobs: Path) -> list[Path]:
        """Download all layers and return their files. Those of an earlier attempt are kept, or continued."""
        name, layers = self.reference.shown, self.image.layers
        total = sum(layer.size for layer in layers)
        require_size(total, MODEL, name)
        require_room(self.context, total - folder_size(blobs), name)
        targets = [blobs / str(number) for number in range(len(layers))]
        remote = [_remote(self.registry, layer, target) for layer, target in zip(layers, targets, strict=True)]
        download_all(remote, ProgressCounter(self.context, f"downloading {name}", total, 0, 60), MODEL, name)
        return targets

    def _unpack(self, targets: list[Path], table: FileTable) -> None:
        """Fill the table. Each layer is removed when it is unpacked."""
        total = sum(layer.size for layer in self.image.layers)
        counter = ProgressCounter(self.context, f"unpacking {self.reference.shown}", total, 60, 80)
        for layer, target in zip(self.image.layers, targets, strict=True):
            if layer.title is not None:
                table.add_file(_name(layer.title), target, layer.digest, counter)
                continue
            try:
                table.add_layer(target, layer.digest, counter)
            finally:  # after a damaged download, too: a later attempt begins again
                target.unlink()
                remove_marks(target)

    def _publish(self, table: FileTable, folder: Path) -> Seal:
        """Link the files of the model into ``folder``, check them, and return the seal."""
        name = self.reference.shown
        files = table.files_in(model_directory(list(table.entries), self.image.top, self.reference))
        require_files(files, name)
        small = settings(files)
        _link(small, files, folder)
        check_settings(folder, name, self.requirements)
        large = weights(files, folder, name)
        _link(large, files, folder)
        check_weights(folder, name)
        open_to_group(folder, [folder / file for file in (*small, *large)])
        weights_read = WeightReaders(name)
        total = sum(files[file].size for file in (*small, *large))
        counter = ProgressCounter(self.context, "sealing the model", total, 80, 99)
        seal = seal_directory(folder, {"source": name, "digest": self.image.digest}, counter, weights_read)
        weights_read.require_finite()
        return seal


def _link(names: Sequence[str], files: Mapping[str, File], folder: Path) -> None:
    """Give contents their names; a file system without hard links gets copies."""
    for name in names:
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(files[name].path, target)
        except OSError:
            shutil.copyfile(files[name].path, target)


def model_directory(names: Sequence[str], top: str, reference: ImageReference) -> str:
    """Return the directory with the model: ``top`` if it has a config.json, or else the only one below it that has.

    Raises:
        StageError: ``ModelNotFound``: there is nothing below ``top``, or there are several models.
    """
    directories = sorted({name.rpartition("/")[0] for name in names if name.rpartition("/")[2] == "config.json"})
    if top in directories or not directories:
        if not any(name != top for name in names):
            raise _unusable(reference, f"it has no files below /{top}")
        return top
    if len(directories) > 1:
        shown = ", ".join(f"/{one}" for one in directories[:3])
        raise _unusable(
            reference, f"it has {len(directories)} directories with a config.json ({shown}), and a run trains one model"
        )
    return directories[0]
