"""Models from the hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from finetune_contract.codec import digest
from finetune_contract.documents import Scalar
from finetune_contract.uris import HubId
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.background import folder_size, in_background
from finetune_stages.sources.hub import COMMIT, Repository, find_repository, hub_errors, token
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import ProgressCounter

from .check import Requirements
from .download import Listing, kept_entry, obtain_listed
from .obtain import Obtained, entry_path

_BOOKKEEPING = ".cache"
"""Folder in which ``huggingface_hub`` records its downloads, so that a later attempt can resume."""


def obtain(context: Context, source: HubId, revision: str | None, requirements: Requirements) -> Obtained:
    """Store a model of the hub in the cache, under its id and commit.

    If the hub is unreachable and the revision is a commit in the cache, the cache is used.

    Raises:
        StageError: ``ModelNotFound``, ``ModelForbidden``, ``ModelUnreachable``, ``ModelIncomplete``, ``ModelCorrupt``,
            ``ModelUnsupported``, ``RemoteCode``, ``ChatTemplateMissing``, ``ChatTemplateInvalid``, ``WorkspaceFull``.
    """
    try:
        found = find_repository(MODEL, source.id, revision, context)
    except StageError as error:
        offline = _without_hub(context, source.id, revision) if error.reason is MODEL.unreachable else None
        if offline is None:
            raise
        print(f"{error.message} Using commit {revision} from the cache.")
        return offline
    return obtain_listed(context, _listing(found), requirements)


def is_unchanged(context: Context, source: HubId, revision: str | None, commit: Scalar | None) -> bool:
    """Return whether the revision still refers to that commit. The hub is asked unless the revision is a commit.

    Raises:
        StageError: The hub is unreachable, or the repository or revision no longer exists.
    """
    if revision and COMMIT.fullmatch(revision):
        return revision == commit
    return find_repository(MODEL, source.id, revision, context).commit == commit


def _key(model: str, commit: str) -> str:
    return digest(["hub", model, commit])


def _without_hub(context: Context, model: str, revision: str | None) -> Obtained | None:
    if not revision or not COMMIT.fullmatch(revision):
        return None
    key = _key(model, revision)
    seal = kept_entry(context, key, model)
    return (
        Obtained(entry_path(context, key), seal, model, revision, reused=True, fingerprint={"commit": revision}) if seal else None
    )


def _listing(found: Repository) -> Listing:
    def fetch(names: list[str], folder: Path, counter: ProgressCounter) -> None:
        with hub_errors(MODEL, found.id, found.commit):
            in_background(lambda: _snapshot(found, names, folder), lambda: counter.at(folder_size(folder)))

    return Listing(
        found.id, "the hub", _key(found.id, found.commit), found.sizes, {"source": found.id, "commit": found.commit},
        {"commit": found.commit}, fetch,
        lambda folder: shutil.rmtree(folder / _BOOKKEEPING, ignore_errors=True), found.commit, found.sha256,
    )  # fmt: skip


def _snapshot(found: Repository, names: list[str], folder: Path, resets: int = 5) -> None:
    import huggingface_hub
    from httpx2 import ReadError

    patterns = [_literal(name) for name in names]
    try:
        huggingface_hub.snapshot_download(
            found.id, revision=found.commit, local_dir=folder, allow_patterns=patterns, token=token()
        )
    except ReadError:
        # The library resumes after a truncated body or a timeout, but not after a connection reset.
        if not resets:
            raise
        _snapshot(found, names, folder, resets - 1)


def _literal(name: str) -> str:
    """Return a ``fnmatch`` pattern that matches this file name only."""
    return re.sub(r"([*?[])", r"[\1]", name)
