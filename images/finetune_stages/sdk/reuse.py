"""Reuse of results across runs: a stage's result for its inputs is found, verified and reused by later runs of the volume.

A finished stage writes ``cache/results/<stage>/<inputs-digest>.json``: its full result, the digests of everything that it published,
and the run folders that contain it. A later run with the same inputs links the files into its own folder (or copies them, if the file
system has no hard links), verifies every byte, and publishes them as its own. If a file is missing or damaged, one line is
logged, and the stage does the work.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import decode, digest, encode
from finetune_contract.documents import Scalar
from finetune_contract.progress import Progress
from finetune_contract.result import Result
from finetune_contract.workspace import CACHE_RESULTS, SENTINEL, Attempt

from .context import NO_DIGEST, Context, Finished
from .fault import first_line
from .safe_files import RESULT_FILE_LIMIT, read_bounded
from .workspace import SealedFile, copy_or_link_file, file_sha256, is_below, read_seal, verify_seal, write_file

_FOLDER = "reused"
"""Name of the folder, inside the attempt's folder, where a reused result is assembled before it is published."""
_MAX_ROOTS = 8
"""Largest number of run folders in a record. Several are kept because each may be deleted with its run."""


def _always(_context: Context, _fingerprint: Mapping[str, Scalar]) -> bool:
    return True


@dataclass(frozen=True)
class Reuse:
    """How the results of a stage are reused.

    Attributes:
        directories: patterns of the sealed directories that the stage publishes, relative to its folder (:meth:`RunLayout.folder`).
        files: patterns of single files; ``{stage}`` is replaced by the stage's name.
        revalidate: returns whether ``Finished.fingerprint`` of a stored result still holds.
    """

    directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    revalidate: Callable[[Context, Mapping[str, Scalar]], bool] = _always


@dataclass(frozen=True)
class Directory:
    """A published directory: its seal's digest, its cache entry, and whether the run has only a link to that entry."""

    digest: str
    cache: str | None = None
    linked: bool = False


@dataclass(frozen=True)
class Record:
    """Content of a file in ``cache/results``.

    Attributes:
        run: name of the run that did the work.
        result: the result of that run.
        roots: folders of the stage in the runs that have the result, the newest first.
        directories, files: published directories and files, by path relative to these folders.
    """

    run: str
    result: Result
    roots: tuple[str, ...]
    directories: dict[str, Directory]
    files: dict[str, SealedFile]
    fingerprint: dict[str, Scalar]


class _Unusable(Exception):
    """A record cannot be used; the message has the cause."""


def store_result(context: Context, reuse: Reuse, finished: Finished, result: Result) -> None:
    """Store the result that this stage has just published, for other runs."""
    if finished.fingerprint is None or context.inputs_digest == NO_DIGEST:
        return
    root = context.path(_home(context))
    directories = {}
    for path in _matching(root, reuse.directories):
        seal = read_seal(path)
        if seal is not None:
            name = str(path.relative_to(root))
            directories[name] = Directory(seal.digest, finished.cached.get(name), path.is_symlink())
    files = {
        str(path.relative_to(root)): SealedFile(path.stat().st_size, file_sha256(path))
        for path in _matching(root, _named(context, reuse.files))
    }
    own = replace(result, file=None, file_digest=None)
    _write(context, Record(context.document.run.name, own, (_home(context),), directories, files, finished.fingerprint))


def reuse_result(context: Context, reuse: Reuse, publishing: bool) -> Finished | None:
    """Bring an earlier run's result for the same inputs into this run's folder and return it; ``None`` if there is none.

    Every process of a job gets the same answer; only the one with ``publishing`` writes.

    Raises:
        StageError: ``Superseded``, or an error of ``reuse.revalidate``, which the work would raise too.
    """
    record = _read(context)
    if record is None:
        return None
    if not reuse.revalidate(context, record.fingerprint):
        _skip(context, record, "its sources have changed or cannot be compared")
        return None
    try:
        with _folder(context, publishing) as folder:
            found = {name: _directory(context, folder, name, record) for name in record.directories}
            found |= {name: _file(context, folder, name, record) for name in record.files}
            if folder:
                _publish(context, reuse, record, found, folder)
    except _Unusable as why:
        _skip(context, record, str(why))
        return None
    if publishing:
        _add_root(context, record)
    return _finished(context, record)


def _skip(context: Context, record: Record, why: str) -> None:
    print(f"{context.document.stage}: run {record.run} has a result for the same inputs, but {why}: the work is done again")


def _directory(context: Context, folder: Path | None, name: str, record: Record) -> Path:
    """Return a directory of the record with every byte verified: in its present location if possible, else in ``folder``.

    Without a ``folder`` the directory is verified but not copied.
    """
    directory = record.directories[name]
    for path in _candidates(context, name, record):
        seal = read_seal(path)
        if seal is None or seal.digest != directory.digest:
            continue
        found = path
        if folder and not directory.linked and path != _own(context, name):
            found = folder / name
            shutil.rmtree(found, ignore_errors=True)
            if not _copied(path, found, (*seal.files, SENTINEL)):
                continue
        total = sum(file.size for file in seal.files.values())
        if verify_seal(found, advance=_Verification(context, f"verifying the result of run {record.run}", total)) is not None:
            return found
    raise _Unusable(f"its {name} is gone or damaged")


def _file(context: Context, folder: Path | None, name: str, record: Record) -> Path:
    """Return a file of the record in the same way."""
    for path in _candidates(context, name, record):
        found = path
        if folder and path != _own(context, name):
            found = folder / name
            if not _copied(path.parent, found.parent, (path.name,)):
                continue
        if found.is_file() and SealedFile(found.stat().st_size, file_sha256(found)) == record.files[name]:
            return found
    raise _Unusable(f"its {name} is gone or damaged")


def _copied(source: Path, target: Path, names: Iterable[str]) -> bool:
    """Link or copy files; return false if one cannot be read or was deleted meanwhile."""
    try:
        for name in names:
            copy_or_link_file(source / name, target / name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return True


def _home(context: Context) -> str:
    """Return the folder that the paths in a record are relative to."""
    return context.layout.folder(context.document.stage)


def _own(context: Context, name: str) -> Path:
    return context.path(f"{_home(context)}/{name}")


def _candidates(context: Context, name: str, record: Record) -> list[Path]:
    """Return the possible locations: in the cache, in this run's own folder (from an earlier round), in other runs."""
    roots = sorted(record.roots, key=lambda root: root != _home(context))
    directory = record.directories.get(name)
    cache = [directory.cache] if directory and directory.cache else []
    runs = [] if directory and directory.linked else [f"{root}/{name}" for root in roots]
    return [context.path(path) for path in (*cache, *runs)]


def _publish(context: Context, reuse: Reuse, record: Record, found: Mapping[str, Path], folder: Path) -> None:
    """Publish everything that was found, in the order of the stage's patterns.

    The outputs of an earlier round are removed first, so that outputs of two rounds are never mixed.
    """
    root = context.path(_home(context))
    context.require_current()
    for number, old in enumerate(_matching(root, (*reuse.directories, *_named(context, reuse.files)))):
        name = str(old.relative_to(root))
        if found.get(name) != old and not (old.is_symlink() and name in found):
            old.rename(folder / f"replaced.{number}")
    for name, path in found.items():
        target = f"{_home(context)}/{name}"
        if name in record.directories and record.directories[name].linked:
            context.publish_link(path, target)
        elif path == root / name:
            continue
        elif name in record.directories:
            context.publish(path, target)
        else:
            context.publish_file(path, target)


def _finished(context: Context, record: Record) -> Finished:
    result = record.result
    owner = "an earlier round" if _home(context) == record.roots[-1] else f"run {record.run}"
    metrics = {name: value for name, value in result.metrics.items() if name != "seconds"}
    message = f"the same as {owner}: {result.message}" if result.message else f"the same as {owner}"
    return Finished(result.outputs, metrics, result.history, message, result.warnings, reused=True)


def _add_root(context: Context, record: Record) -> None:
    """Add this run's folder to the record, in case the other runs are deleted."""
    others = [root for root in record.roots if root != _home(context)]
    if len(others) == len(record.roots):
        # The oldest root stays last: it identifies the run that did the work.
        _write(context, replace(record, roots=(_home(context), *others[: _MAX_ROOTS - 2], *others[_MAX_ROOTS - 2 :][-1:])))


def _read(context: Context) -> Record | None:
    path = _path(context)
    if context.inputs_digest == NO_DIGEST:
        return None
    try:
        data = json.loads(read_bounded(path, RESULT_FILE_LIMIT))
        record = decode(Record, data["record"])
        intact = digest(data["record"]) == data["digest"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        print(f"{context.document.stage}: {path.name} cannot be read ({first_line(error)}): the work is done again")
        return None
    if not intact:
        print(f"{context.document.stage}: {path.name} is damaged: the work is done again")
        return None
    caches = [directory.cache for directory in record.directories.values() if directory.cache]
    if not all(map(is_below, (*record.directories, *record.files, *record.roots, *caches))):
        return None
    mine = (context.document.stage, context.inputs_digest, "Succeeded", CONTRACT_VERSION)
    theirs = (record.result.stage, record.result.inputs_digest, record.result.outcome, record.result.contract_version)
    return record if mine == theirs else None


def _write(context: Context, record: Record) -> None:
    """Write the record. A full volume or a read-only cache does not fail a stage that has finished."""
    try:
        write_file(_path(context), json.dumps({"digest": digest(record), "record": encode(record)}, allow_nan=False).encode())
    except OSError as error:
        print(f"{context.document.stage}: the result is not kept for other runs ({error})")


def _path(context: Context) -> Path:
    return context.path(f"{CACHE_RESULTS}/{context.document.stage}/{context.inputs_digest}.json")


def _named(context: Context, patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(pattern.format(stage=context.document.stage) for pattern in patterns)


def _matching(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


@contextmanager
def _folder(context: Context, publishing: bool) -> Iterator[Path | None]:
    """Folder where a result is assembled; it is removed afterwards, with those of killed attempts."""
    if not publishing:
        yield None
        return
    attempt = context.path(context.layout.attempt(context.document.stage, context.attempt))
    for left in attempt.parent.iterdir():
        if left.is_symlink():
            left.unlink()
        elif _order(left) <= context.attempt.order:
            _remove(left / _FOLDER)
    own = attempt / _FOLDER
    own.mkdir(parents=True)
    try:
        yield own
    finally:
        _remove(own)


def _order(folder: Path) -> tuple[int, int]:
    try:
        return Attempt.parse(folder.name).order
    except ValueError:  # the file that names the current attempt
        return (sys.maxsize, 0)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.rmdir()
    except OSError:  # the folder holds an unfinished download, or does not exist
        pass


@dataclass
class _Verification:
    """Progress of a verification, which reads every byte: a large model takes minutes."""

    context: Context
    note: str
    total: int
    done: int = 0

    def __call__(self, more: int) -> None:
        self.done += more
        # No percentage: if the result is damaged, the whole work follows.
        self.context.report(Progress(0, note=f"{self.note}, {self.done / 10**6:.0f} of {self.total / 10**6:.0f} MB"))
