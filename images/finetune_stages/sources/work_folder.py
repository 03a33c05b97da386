"""Folder of a stage's unfinished work, which a later attempt can resume."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.reasons import Cause
from finetune_contract.workspace import Attempt
from finetune_stages.sdk import Context
from finetune_stages.sdk.fault import classify


@contextmanager
def work_folder(context: Context, resume: str | None = None) -> Iterator[Path]:
    """This attempt's folder, empty except for the subfolder ``resume`` of an earlier attempt, if there is one.

    It is removed afterwards, with those of earlier attempts. Only after an interruption or a transient fault the subfolder
    ``resume`` is kept for the next attempt.
    """
    folder = context.path(context.layout.attempt(context.document.stage, context.attempt))
    _take_over(folder, resume)
    try:
        yield folder
    except BaseException as error:
        if resume is None or classify(error).reason.cause not in (Cause.INTERRUPTED, Cause.TRANSIENT):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _take_over(folder: Path, resume: str | None) -> None:
    """Move the subfolder ``resume`` into ``folder`` and remove all other files of this attempt and earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for child in folder.iterdir():
        if child.name != resume or child.is_symlink():
            _remove(child)
    for earlier in _earlier(folder):
        if resume and _is_folder(earlier) and _is_folder(earlier / resume) and not (folder / resume).exists():
            (earlier / resume).rename(folder / resume)
        _remove(earlier)


def _earlier(folder: Path) -> list[Path]:
    """Return the folders of earlier attempts, the newest first."""
    own = Attempt.parse(folder.name).order
    found = []
    for path in folder.parent.iterdir():
        try:
            order = Attempt.parse(path.name).order
        except ValueError:  # the file `current`
            continue
        if order < own:
            found.append((order, path))
    return [path for _, path in sorted(found, reverse=True)]


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder, and not a link to one, which may belong to another run."""
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
