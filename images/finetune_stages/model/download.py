"""Download of a model whose files can be fetched one by one: the small files are checked before the weights are downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_contract.documents import Scalar
from finetune_stages.sdk import Context, Seal, StageError, seal_directory
from finetune_stages.sources.background import folder_size
from finetune_stages.sources.cache import store_entry, verified_entry
from finetune_stages.sources.download_limits import require_size
from finetune_stages.sources.downloads import RemoteFile, download_all, remove_marks
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.work_folder import work_folder

from .check import Requirements, check_settings, check_weights
from .files import require_files, settings, weights
from .numbers import WeightReaders
from .obtain import Obtained, entry_path, open_to_group, require_room

Fetch = Callable[[list[str], Path, ProgressCounter], None]
"""Downloads files into a folder, except those that an earlier attempt downloaded completely."""


@dataclass(frozen=True)
class Listing:
    """The files of a model on a server, at one version.

    Attributes:
        name: the model in messages.
        server: the server in messages.
        key: key of the cache entry: digest of what identifies the content.
        sizes: size of each file in bytes.
        note: what the seal states about the origin.
        fingerprint: values that detect another version.
        sha256: digests of files that the server states.
        bookkeeping: removes what ``fetch`` records in the folder, so that a later attempt can resume.
    """

    name: str
    server: str
    key: str
    sizes: Mapping[str, int]
    note: Mapping[str, Scalar]
    fingerprint: Mapping[str, Scalar]
    fetch: Fetch
    bookkeeping: Callable[[Path], None]
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


def obtain_listed(context: Context, listing: Listing, requirements: Requirements) -> Obtained:
    """Store a model in the cache, unless it is there.

    Raises:
        StageError: what ``listing.fetch`` raises; ``ModelIncomplete``, ``ModelCorrupt``, ``ModelUnsupported``, ``ModelUnreachable``: a
            file is not the one that the server states; ``RemoteCode``, ``ChatTemplateMissing``, ``ChatTemplateInvalid``,
            ``WorkspaceFull``.
    """
    entry = entry_path(context, listing.key)
    kept = kept_entry(context, listing.key, listing.name)
    if kept:
        return Obtained(entry, kept, listing.name, listing.revision, True, listing.fingerprint)
    resumed = f"download-{listing.key[:12]}"
    with work_folder(context, resume=resumed) as scratch:
        seal = _download(context, listing, scratch / resumed, requirements)
        store_entry(scratch / resumed, entry)
    return Obtained(entry, seal, listing.name, listing.revision, fingerprint=listing.fingerprint)


def kept_entry(context: Context, key: str, model: str) -> Seal | None:
    """Return the seal of a cache entry. Its weights are checked, too, because an earlier release did not check them."""
    weights_read = WeightReaders(model)
    seal = verified_entry(context, entry_path(context, key), weights_read)
    if seal:
        weights_read.require_finite()
    return seal


def ranges(files: Callable[[str, Path], RemoteFile], model: str) -> Fetch:
    """Return a function that downloads files in parallel ranges; ``files`` returns the file with a name, for a target."""

    def fetch(names: list[str], folder: Path, counter: ProgressCounter) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
        download_all([files(name, folder / name) for name in names], counter, MODEL, model)

    return fetch


def remove_ranges(folder: Path) -> None:
    """Remove the records of :func:`ranges` from a folder."""
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        remove_marks(file)


def _download(context: Context, listing: Listing, folder: Path, requirements: Requirements) -> Seal:
    """Download, check and seal a model. Unsupported models fail before their weights are downloaded."""
    name = listing.name
    folder.mkdir(exist_ok=True)
    require_files(listing.sizes, name)
    small = settings(listing.sizes)
    listing.fetch(small, folder, ProgressCounter(context, f"downloading the settings of {name}", high=5))
    check_settings(folder, name, requirements)
    large = weights(listing.sizes, folder, name)
    total = sum(listing.sizes[file] for file in (*small, *large))
    require_size(total, MODEL, name)
    require_room(context, total - folder_size(folder), name)
    listing.fetch(large, folder, ProgressCounter(context, f"downloading {name}", total, 5, 85))
    check_weights(folder, name)
    listing.bookkeeping(folder)
    open_to_group(folder, [folder / file for file in (*small, *large)])
    weights_read = WeightReaders(name)
    counter = ProgressCounter(context, "sealing the model", total, 85, 99)
    seal = seal_directory(folder, dict(listing.note), counter, weights_read)
    _require_as_stated(seal, listing, folder)
    weights_read.require_finite()
    return seal


def _require_as_stated(seal: Seal, listing: Listing, folder: Path) -> None:
    """Check the SHA-256 of the files against the server's."""
    for name, stated in listing.sha256.items():
        if name in seal.files and seal.files[name].sha256 != stated:
            (folder / name).unlink()
            raise StageError(
                MODEL.unreachable,
                f"{listing.name}: {name}: the download is damaged: its SHA-256 is {seal.files[name].sha256}, and {listing.server} states"
                f" {stated}.",
            )
