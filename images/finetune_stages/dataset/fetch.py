"""Sources of rows: lookup by URI, digest, and the rows themselves, which are read only if the cache has no result for them."""

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
class FileSource:
    """A file with JSON Lines or a JSON array, compressed or not.

    Attributes:
        before: status of the file before its digest was computed.
        lines: file for the elements of an array as lines; a compressed file is unpacked beside it.
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
        rows = open_rows(path, self.name, counter)
        return OpenedRows(rows.select(choose(len(rows))), len(rows))

    def require_unchanged(self) -> None:
        """See :class:`Source`."""
        before = self.before
        try:
            now = self.path.stat()
        except FileNotFoundError as error:
            raise StageError(reasons.DATASET_CHANGED, f"{self.name}: was removed while it was read; restore it.") from error
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
            raise StageError(
                reasons.DATASET_CHANGED, f"{self.name}: changed while it was read; rerun when no process writes to it."
            )


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


def find_source(request: SourceRequest, context: Context, scratch: Path) -> Source:
    """Return the requested source. The file at a web address is downloaded into ``scratch``, because its digest is needed.

    Raises:
        StageError: one of the reasons of ``request.origin``, or ``DatasetChanged``: the digest is not the specified one.
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
            f"dataset.sha256: it is {request.sha256}, and {name} has SHA-256 {digest}; correct the field or the file.",
        )
    return FileSource(name, path, digest, before, lines, counter.context, {"sha256": digest})
