"""From a URI to rows: what is there, its digest, and, only if the cache does not have the result, the rows themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from finetune_contract import reasons
from finetune_contract.documents import Scalar
from finetune_contract.uris import HubId
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.workspace import file_sha256
from finetune_stages.sources.json_lines import OpenedRows, open_rows
from finetune_stages.sources.local import require_file
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.uri import parse_uri

from .compressed import unpacked
from .hub import HubDataset, open_hub_rows, resolve
from .source_request import SourceRequest
from .web import download

Choose = Callable[[int], Sequence[int]]
"""Which rows of so many to take: positions, in the order they are wanted."""


class Source(Protocol):
    """Where rows come from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def digest(self) -> str:
        """SHA-256 that stands for the content."""

    @property
    def revision(self) -> str | None:
        """Commit of a hub data set."""

    @property
    def fingerprint(self) -> Mapping[str, Scalar]:
        """By what a later run knows it again (see :mod:`.revalidate`); empty where that cannot be asked."""

    def open(self, choose: Choose) -> OpenedRows:
        """Read the chosen rows; asked once, and only if they are needed."""

    def require_unchanged(self) -> None:
        """Check, when all is read, that the digest is that of what was read.

        Raises:
            StageError: ``DatasetChanged``.
        """


@dataclass(frozen=True)
class FileSource:
    """A file with JSON Lines or a JSON array, compressed or not.

    Attributes:
        before: the file as it was before its digest was taken.
        lines: where an array is written as lines; beside it a compressed file is unpacked.
        noted: see :class:`Source`.
    """

    name: str
    path: Path
    digest: str
    before: os.stat_result
    lines: Path
    context: Context
    fingerprint: Mapping[str, Scalar]
    revision: None = None

    def open(self, choose: Choose) -> OpenedRows:
        """See :class:`Source`."""
        unpacking = ProgressCounter(self.context, f"unpacking {self.name}", high=0)
        path = unpacked(self.path, self.name, self.lines.with_suffix(".unpacked"), unpacking)
        counter = ProgressCounter(self.context, f"finding the rows of {self.name}", path.stat().st_size, 50, 60)
        rows = open_rows(path, self.name, self.lines, counter)
        return OpenedRows(rows.select(choose(len(rows))), len(rows))

    def require_unchanged(self) -> None:
        """See :class:`Source`."""
        before = self.before
        try:
            now = self.path.stat()
        except FileNotFoundError as error:
            raise StageError(reasons.DATASET_CHANGED, f"{self.name}: was removed while it was read; put it back.") from error
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
            raise StageError(
                reasons.DATASET_CHANGED, f"{self.name} was changed while it was read; start again when nobody writes to it."
            )


@dataclass(frozen=True)
class HubSource:
    """A data set of the hub: it cannot change, for a commit never does."""

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


def find_source(request: SourceRequest, context: Context, scratch: Path) -> Source:
    """Return what ``request`` names. A web address is fetched into ``scratch`` here, for only its content tells what it is.

    Raises:
        StageError: one of the reasons of ``request.origin``, or ``DatasetChanged``: it has not the stated digest.
    """
    source_uri = parse_uri(request.uri, request.origin)
    if isinstance(source_uri, HubId):
        if request.sha256:
            raise StageError(
                reasons.BAD_DOCUMENT,
                f"dataset.sha256 is for files; pin {source_uri.id} with dataset.revision (a commit) instead.",
            )
        return HubSource(resolve(source_uri, request, context), context, scratch)
    if request.split or request.revision:
        field = "split" if request.split else "revision"
        raise StageError(reasons.BAD_DOCUMENT, f"dataset.{field} is for data sets of the hub; remove it.")
    lines = scratch / f"{request.origin.field}.jsonl"
    if isinstance(source_uri, Path):
        require_file(source_uri, request.origin)
        return _file(source_uri, str(source_uri), request, lines, ProgressCounter(context, f"reading {source_uri}", high=50))
    target = scratch / f"{request.origin.field}.download"
    fingerprint = download(
        source_uri, target, request.origin, ProgressCounter(context, f"downloading {source_uri.shown}", high=45)
    )
    found = _file(
        target, source_uri.shown, request, lines, ProgressCounter(context, f"reading {source_uri.shown}", low=45, high=50)
    )
    return replace(found, fingerprint=fingerprint)


def _file(path: Path, name: str, request: SourceRequest, lines: Path, counter: ProgressCounter) -> FileSource:
    before = path.stat()
    counter.total = before.st_size
    digest = file_sha256(path, counter)
    if request.sha256 and digest != request.sha256:
        raise StageError(
            reasons.DATASET_CHANGED,
            f"{name} has SHA-256 {digest} but dataset.sha256 is {request.sha256}; correct the one that is wrong.",
        )
    return FileSource(name, path, digest, before, lines, counter.context, {"sha256": digest})
