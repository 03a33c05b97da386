"""Sources of rows: lookup by URI, digest, and the rows themselves, which are read only if the cache has no result for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from finetune_contract import reasons
from finetune_contract.documents import Scalar
from finetune_contract.uris import HubId, ImageReference, S3Location, WebAddress
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.downloads import download_all
from finetune_stages.sources.json_lines import OpenedRows
from finetune_stages.sources.progress import ProgressCounter, report_note
from finetune_stages.sources.s3 import Bucket, S3Access, objects_fingerprint
from finetune_stages.sources.uri import parse_uri

from .files import FileSource
from .hub import HubDataset, open_hub_rows, resolve
from .local_files import LocalLocation
from .s3_files import find_objects
from .source_file import SourceFile
from .source_request import SourceRequest
from .web import download

DOWNLOADS = "downloads"
"""Folder of the work folder with the files of s3:// and http(s):// locations, which a later attempt resumes."""

Choose = Callable[[int], Sequence[int]]
"""Selects rows: returns positions, in order, for a number of rows."""


class Source(Protocol):
    """A source of rows."""

    @property
    def name(self) -> str:
        """Name in messages."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the content."""

    @property
    def revision(self) -> str | None:
        """Commit of a hub dataset."""

    @property
    def fingerprint(self) -> Mapping[str, Scalar]:
        """Values that detect a change of the source (see :mod:`.revalidate`); empty if a change cannot be detected."""

    def open(self, choose: Choose) -> OpenedRows:
        """Read the selected rows. Called at most once."""

    def require_unchanged(self) -> None:
        """Check, after reading, that the source did not change while it was read.

        Raises:
            StageError: ``DatasetChanged``.
        """


@dataclass(frozen=True)
class HubSource:
    """A dataset of the hub at a commit, which never changes."""

    dataset: HubDataset
    context: Context
    scratch: Path

    @property
    def name(self) -> str:
        """See :class:`Source`."""
        return self.dataset.id

    @property
    def digest(self) -> str:
        """See :class:`Source`."""
        return self.dataset.digest

    @property
    def revision(self) -> str:
        """See :class:`Source`."""
        return self.dataset.commit

    @property
    def fingerprint(self) -> Mapping[str, Scalar]:
        """See :class:`Source`."""
        return {"commit": self.dataset.commit}

    def open(self, choose: Choose) -> OpenedRows:
        """See :class:`Source`."""
        return open_hub_rows(self.dataset, choose, self.context, self.scratch)

    def require_unchanged(self) -> None:
        """See :class:`Source`."""


@dataclass(frozen=True)
class _Found:
    """Files of a location on this machine, downloaded or not.

    Attributes:
        files: each path with its name in messages.
        fingerprint: see :class:`Source`; ``None`` for the digest of the files.
        low: percent of the stage's progress that is reached.
    """

    name: str
    files: Sequence[tuple[Path, str]]
    fingerprint: Mapping[str, Scalar] | None = None
    notes: tuple[str, ...] = ()
    low: int = 0


def find_source(request: SourceRequest, context: Context, scratch: Path) -> Source:
    """Return the requested source. Files of s3:// and http(s):// are downloaded into ``scratch``, because their digest is needed.

    Raises:
        StageError: one of the reasons of ``request.origin``, ``S3CredentialsMissing``, ``DatasetUntrusted``, ``DatasetUnreadable``, or
            ``DatasetChanged``: the digest is not the specified one.
    """
    source_uri = parse_uri(request.uri, request.origin)
    if isinstance(source_uri, HubId):
        if request.sha256:
            raise StageError(
                reasons.BAD_DOCUMENT,
                f"dataset.sha256: it applies to files only; pin {source_uri.id} with a commit in dataset.revision instead.",
            )
        return HubSource(resolve(source_uri, request, context), context, scratch)
    if request.split or request.revision:
        field = "split" if request.split else "revision"
        raise StageError(reasons.BAD_DOCUMENT, f"dataset.{field}: it applies to hub datasets only; remove it.")
    if isinstance(source_uri, S3Location):
        found = _from_s3(source_uri, request, context, scratch)
    elif isinstance(source_uri, WebAddress):
        found = _from_web(source_uri, request, context, scratch)
    else:
        assert not isinstance(source_uri, ImageReference)  # no URI of a dataset is an image
        location = LocalLocation.of(source_uri, request.origin)
        files, notes = location.find(request.origin)
        found = _Found(location.name, [(file.path, file.name) for file in files], None, notes)
    return _source(found, request, context, scratch)


def _from_s3(location: S3Location, request: SourceRequest, context: Context, scratch: Path) -> _Found:
    origin = request.origin
    access = S3Access.of(location, origin, request.endpoint, request.region)
    report_note(context, f"looking up {location.shown}")
    bucket = Bucket(location, access, origin)
    objects, notes = find_objects(bucket, location, origin)
    targets = [_downloads(scratch) / f"{origin.field}.{number}" for number in range(len(objects))]
    counter = ProgressCounter(context, f"downloading {location.shown}", high=45)
    files = [bucket.remote(one, target) for one, target in zip(objects, targets, strict=True)]
    download_all(files, counter, origin, location.shown)
    names = [f"s3://{location.bucket}/{one.key}" for one in objects]
    return _Found(location.shown, list(zip(targets, names, strict=True)), objects_fingerprint(objects), notes, low=45)


def _from_web(address: WebAddress, request: SourceRequest, context: Context, scratch: Path) -> _Found:
    target = _downloads(scratch) / f"{request.origin.field}.0"
    counter = ProgressCounter(context, f"downloading {address.shown}", high=45)
    fingerprint = download(address, target, request.origin, counter)
    return _Found(address.shown, [(target, address.shown)], fingerprint, low=45)


def _downloads(scratch: Path) -> Path:
    folder = scratch / DOWNLOADS
    folder.mkdir(exist_ok=True)
    return folder


def _source(found: _Found, request: SourceRequest, context: Context, scratch: Path) -> FileSource:
    """Return the source of files, whose digests are computed here."""
    if request.sha256 and len(found.files) > 1:
        raise StageError(
            reasons.BAD_DOCUMENT,
            f"dataset.sha256: it applies to one file, and {found.name} has {len(found.files)}; remove it, or set one file.",
        )
    total = sum(path.stat().st_size for path, _ in found.files)
    counter = ProgressCounter(context, f"reading {found.name}", total, low=found.low, high=50)
    files = tuple(SourceFile.read(path, name, counter) for path, name in found.files)
    if request.sha256 and files[0].sha256 != request.sha256:
        raise StageError(
            reasons.DATASET_CHANGED,
            f"dataset.sha256: it is {request.sha256}, and {found.name} has SHA-256 {files[0].sha256}; correct the field or the file.",
        )
    source = FileSource(found.name, files, {}, scratch / request.origin.field, context, found.notes)
    return replace(source, fingerprint={"sha256": source.digest} if found.fingerprint is None else found.fingerprint)
