"""Models from a directory of this machine or of the volume of a claim: hard-linked on the same file system, else copied."""

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
from finetune_stages.sources.claims import LocalSource
from finetune_stages.sources.local import require_directory, require_readable
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.work_folder import work_folder

from .check import Requirements, check_settings, check_weights
from .files import CHAT_TEMPLATES, require_files, settings, weights
from .numbers import WeightReaders
from .obtain import Obtained, entry_path, open_to_group, require_room

_GROUP_READABLE = stat.S_IRUSR | stat.S_IRGRP


class Directory(LocalSource):
    """A directory with a model."""

    def files(self) -> list[str]:
        """Return the names of the model's files.

        Raises:
            StageError: ``ModelNotFound``, ``ModelForbidden``, ``ModelIncomplete``, ``ModelCorrupt``, ``ModelUnsupported``.
        """
        require_directory(self.path, self.name, MODEL)
        self.require_inside(self.path, self.name, MODEL)
        found = [path for path in (*self.path.glob("*"), *self.path.glob(f"{CHAT_TEMPLATES}/*")) if path.is_file()]
        present = [str(path.relative_to(self.path)) for path in found]
        require_files(present, self.name)
        chosen = settings(present)
        self._require_usable(chosen)
        large = weights(present, self.path, self.name)
        self._require_usable(large)
        return sorted((*chosen, *large))

    def _require_usable(self, names: list[str]) -> None:
        for name in names:
            self.require_inside(self.path / name, f"{self.name}/{name}", MODEL)
            require_readable(self.path / name, MODEL, name=f"{self.name}/{name}")


def obtain(context: Context, source: Directory, requirements: Requirements) -> Obtained:
    """Store the model in ``source`` in the cache, under the digest of its files.

    Raises:
        StageError: ``ModelNotFound``, ``ModelForbidden``, ``ModelIncomplete``, ``ModelCorrupt``, ``ModelUnsupported``, ``RemoteCode``,
            ``ChatTemplateMissing``, ``ChatTemplateInvalid``, ``WorkspaceFull``.
    """
    path, model = source.path, source.name
    names = source.files()
    check_settings(path, model, requirements)
    check_weights(path, model)
    total = sum((path / name).stat().st_size for name in names)
    reading = ProgressCounter(context, f"reading {model}", total, 0, 40)
    weights_read = WeightReaders(model)
    key = digest({name: file_sha256(path / name, reading, weights_read) for name in names})
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


def is_unchanged(context: Context, source: Directory, key: Scalar | None) -> bool:
    """Return whether the files in ``source`` are equal to those of the cache entry ``key``, which the caller verifies.

    Files that are hard links to the entry's files are not read again.

    Raises:
        StageError: The model no longer exists or is incomplete.
    """
    entry = entry_path(context, str(key))
    names, seal = source.files(), read_seal(entry)
    if seal is None or seal.digest != key or set(seal.files) != set(names):
        return False
    total = sum(file.size for file in seal.files.values())
    reading = ProgressCounter(context, f"reading {source.name}", total, high=0)
    return all(
        _same_file(source.path / name, entry / name) or file_sha256(source.path / name, reading) == seal.files[name].sha256
        for name in names
    )


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


def _bring(source: Directory, folder: Path, names: list[str], context: Context, total: int) -> None:
    if source.path.stat().st_dev != folder.stat().st_dev:
        require_room(context, total, source.name)
    counter = ProgressCounter(context, f"copying {source.name}", total, 40, 70)
    copied = in_background(
        lambda: [folder / name for name in names if not _link_or_copy((source.path / name).resolve(), folder / name)],
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
