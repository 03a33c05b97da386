"""Models from the hub: the small files are downloaded and checked before the weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.documents import Scalar
from finetune_contract.uris import HubId
from finetune_stages.sdk import Context, Seal, StageError, seal_directory
from finetune_stages.sources.background import folder_size, in_background
from finetune_stages.sources.cache import store_entry, verified_entry
from finetune_stages.sources.hub import COMMIT, Repository, find_repository, hub_errors, token
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.work_folder import work_folder

from .check import check_settings, check_weights
from .files import settings, weights
from .numbers import WeightReaders
from .obtain import Obtained, entry_path, open_to_group, require_room

_BOOKKEEPING = ".cache"
"""Folder in which ``huggingface_hub`` records its downloads, so that a later attempt can resume."""


def obtain(
    context: Context, source: HubId, revision: str | None, trust_remote_code: bool, requires_chat_template: bool = True
) -> Obtained:
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
    key = _key(source.id, found.commit)
    kept = _kept(context, key, source.id)
    if kept:
        return Obtained(entry_path(context, key), kept, source.id, found.commit, reused=True)
    with work_folder(context, resume=f"download-{key[:12]}") as scratch:
        seal = _download(context, found, scratch / f"download-{key[:12]}", trust_remote_code, requires_chat_template)
        store_entry(scratch / f"download-{key[:12]}", entry_path(context, key))
    return Obtained(entry_path(context, key), seal, source.id, found.commit)


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
    seal = _kept(context, key, model)
    return Obtained(entry_path(context, key), seal, model, revision, reused=True) if seal else None


def _kept(context: Context, key: str, model: str) -> Seal | None:
    """Return the seal of the cache entry. Its weights are checked, too, because an earlier release did not check them."""
    weights_read = WeightReaders(model)
    seal = verified_entry(context, entry_path(context, key), weights_read)
    if seal:
        weights_read.require_finite()
    return seal


def _download(context: Context, found: Repository, folder: Path, trust_remote_code: bool, requires_chat_template: bool) -> Seal:
    """Download, check and seal a model. Unsupported models fail before their weights are downloaded."""
    small = settings(found.sizes)
    _fetch(found, small, folder, ProgressCounter(context, f"downloading the settings of {found.id}", high=5))
    check_settings(folder, found.id, trust_remote_code, requires_chat_template)
    large = weights(found.sizes, folder, found.id)
    total = sum(found.sizes[name] for name in (*small, *large))
    require_room(context, total - folder_size(folder), found.id)
    _fetch(found, large, folder, ProgressCounter(context, f"downloading {found.id}", total, 5, 85))
    check_weights(folder, found.id)
    shutil.rmtree(folder / _BOOKKEEPING, ignore_errors=True)
    open_to_group(folder, [folder / name for name in (*small, *large)])
    weights_read = WeightReaders(found.id)
    counter = ProgressCounter(context, "sealing the model", total, 85, 99)
    seal = seal_directory(folder, {"source": found.id, "commit": found.commit}, counter, weights_read)
    _require_as_stated(seal, found, folder)
    weights_read.require_finite()
    return seal


def _fetch(found: Repository, names: list[str], folder: Path, counter: ProgressCounter) -> None:
    """Download files, except those that an earlier attempt downloaded completely."""
    folder.mkdir(exist_ok=True)
    with hub_errors(MODEL, found.id, found.commit):
        in_background(lambda: _snapshot(found, names, folder), lambda: counter.at(folder_size(folder)))


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


def _require_as_stated(seal: Seal, found: Repository, folder: Path) -> None:
    """Check the SHA-256 of the large files against the hub's."""
    for name, stated in found.sha256.items():
        if name in seal.files and seal.files[name].sha256 != stated:
            (folder / name).unlink()
            raise StageError(
                reasons.MODEL_UNREACHABLE,
                f"{found.id}: {name}: the download is damaged: its SHA-256 is {seal.files[name].sha256}, and the hub states {stated}.",
            )
