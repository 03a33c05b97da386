"""Models from a local directory: hard-linked on the same file system, else copied."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.documents import Scalar
from finetune_stages.sdk import Context, StageError, read_seal, seal_directory
from finetune_stages.sdk.workspace import file_sha256
from finetune_stages.sources.background import folder_size, in_background
from finetune_stages.sources.cache import store_entry, verified_entry
from finetune_stages.sources.local import require_directory, require_readable
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.work_folder import work_folder

from .check import check_settings, check_weights
from .files import CHAT_TEMPLATES, settings, weights
from .numbers import WeightReaders
from .obtain import Obtained, entry_path, open_to_group, require_room

_GROUP_READABLE = stat.S_IRUSR | stat.S_IRGRP


def obtain(context: Context, source: Path, trust_remote_code: bool, requires_chat_template: bool = True) -> Obtained:
    """Store the model in ``source`` in the cache, under the digest of its files.

    Raises:
        StageError: ``ModelNotFound``, ``ModelForbidden``, ``ModelIncomplete``, ``ModelCorrupt``, ``ModelUnsupported``, ``RemoteCode``,
            ``ChatTemplateMissing``, ``ChatTemplateInvalid``, ``WorkspaceFull``.
    """
    model = str(source)
    names = _files(source)
    check_settings(source, model, trust_remote_code, requires_chat_template)
    check_weights(source, model)
    total = sum((source / name).stat().st_size for name in names)
    reading = ProgressCounter(context, f"reading {model}", total, 0, 40)
    weights_read = WeightReaders(model)
    key = digest({name: file_sha256(source / name, reading, weights_read) for name in names})
    weights_read.require_finite()
    seal = verified_entry(context, entry_path(context, key))
    if seal:
        return Obtained(entry_path(context, key), seal, model, reused=True)
    with work_folder(context) as scratch:
        folder = scratch / "model"
        folder.mkdir()
        _bring(source, folder, names, context, total)
        seal = seal_directory(folder, {"source": model}, ProgressCounter(context, "sealing the copy", total, 70, 99))
        if seal.digest != key:
            raise StageError(
                reasons.MODEL_CORRUPT, f"{model}: it changed while it was copied; rerun when no process writes to it."
            )
        store_entry(folder, entry_path(context, key))
    return Obtained(entry_path(context, key), seal, model)


def is_unchanged(context: Context, source: Path, key: Scalar | None) -> bool:
    """Return whether the files in ``source`` are equal to those of the cache entry ``key``, which the caller verifies.

    Files that are hard links to the entry's files are not read again.

    Raises:
        StageError: The model no longer exists or is incomplete.
    """
    entry = entry_path(context, str(key))
    names, seal = _files(source), read_seal(entry)
    if seal is None or seal.digest != key or set(seal.files) != set(names):
        return False
    total = sum(file.size for file in seal.files.values())
    reading = ProgressCounter(context, f"reading {source}", total, high=0)
    return all(
        _same_file(source / name, entry / name) or file_sha256(source / name, reading) == seal.files[name].sha256
        for name in names
    )


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


def _files(source: Path) -> list[str]:
    """Return the names of the model's files."""
    require_directory(source, MODEL)
    found = [path for path in (*source.glob("*"), *source.glob(f"{CHAT_TEMPLATES}/*")) if path.is_file()]
    present = [str(path.relative_to(source)) for path in found]
    chosen = settings(present)
    for name in chosen:
        require_readable(source / name, MODEL)
    large = weights(present, source, str(source))
    for name in large:
        require_readable(source / name, MODEL)
    return sorted((*chosen, *large))


def _bring(source: Path, folder: Path, names: list[str], context: Context, total: int) -> None:
    if source.stat().st_dev != folder.stat().st_dev:
        require_room(context, total, str(source))
    counter = ProgressCounter(context, f"copying {source}", total, 40, 70)
    copied = in_background(
        lambda: [folder / name for name in names if not _link_or_copy((source / name).resolve(), folder / name)],
        lambda: counter.at(folder_size(folder)),
    )
    open_to_group(folder, copied)


def _link_or_copy(source: Path, target: Path) -> bool:
    """Link or copy a file and return whether it was linked. A file that the group cannot read is copied, because a link shares its mode."""
    target.parent.mkdir(exist_ok=True)
    if source.stat().st_mode & _GROUP_READABLE == _GROUP_READABLE:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return True
    shutil.copyfile(source, target)
    return False
