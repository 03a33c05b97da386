"""Results that outlive their run: what a stage did for its inputs is found, checked and taken over by the next run of the volume.

A finished stage leaves ``cache/results/<stage>.<inputs-digest>.json``: its whole result, the digests of all that it published, and
the run folders where that is. A later run with the same inputs brings it into its own folder by hard links (copies where the
file system has none), reads every byte of it again, and publishes it as if it had done the work. What cannot be found or is damaged
is passed over with one line in the log, and the work is done.
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
from .workspace import SealedFile, copy_or_link_file, file_sha256, is_below, read_seal, verify_seal, write_file

_FOLDER = "reused"
"""Name of the folder, in that of the attempt, where a result is brought together before it is published."""
_MAX_ROOTS = 8
"""Run folders that a record names at most: each may be deleted with its run."""


def _always(_context: Context, _depends_on: Mapping[str, Scalar]) -> bool:
    return True


@dataclass(frozen=True)
class Reuse:
    """What a stage tells the kit, so that its results can be taken over.

    Attributes:
        directories: sealed directories that it publishes, as patterns relative to the run's folder.
        files: the same for single files; ``{stage}`` stands for the stage's name.
        revalidate: whether that which a result depends on beyond its inputs' digest (``Finished.depends_on``) still is as it was.
    """

    directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    revalidate: Callable[[Context, Mapping[str, Scalar]], bool] = _always


@dataclass(frozen=True)
class Directory:
    """A published directory: its seal's digest, where the cache keeps it too, and whether the run only has a link into the cache."""

    digest: str
    cache: str | None = None
    linked: bool = False


@dataclass(frozen=True)
class Record:
    """What a file in ``cache/results`` says.

    Attributes:
        run: name of the run that did the work.
        result: that run's.
        roots: folders of the runs that have it, the newest first.
        directories, files: what was published, by name relative to the run's folder.
    """

    run: str
    result: Result
    roots: tuple[str, ...]
    directories: dict[str, Directory]
    files: dict[str, SealedFile]
    depends_on: dict[str, Scalar]


class _Unusable(Exception):
    """Why a record leads to nothing."""


def store_result(context: Context, reuse: Reuse, finished: Finished, result: Result) -> None:
    """Write down what this stage has just published, for other runs."""
    if finished.depends_on is None or context.inputs_digest == NO_DIGEST:
        return
    root = context.path(context.layout.root)
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
    _write(context, Record(context.document.run.name, own, (context.layout.root,), directories, files, finished.depends_on))


def reuse_result(context: Context, reuse: Reuse, publishing: bool) -> Finished | None:
    """Return what an earlier run of the volume did for the same inputs, brought into this run's folder; ``None`` if there is nothing.

    Every process of a job comes to the same answer; only the one that is ``publishing`` writes.

    Raises:
        StageError: ``Superseded``, or whatever ``reuse.revalidate`` meets where it looks: the work would meet it too.
    """
    record = _read(context)
    if record is None:
        return None
    if not reuse.revalidate(context, record.depends_on):
        _skip(context, record, "what it was made from has changed, or does not say whether it has")
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
    print(f"{context.document.stage}: run {record.run} did this before, but {why}: it is done again")


def _directory(context: Context, folder: Path | None, name: str, record: Record) -> Path:
    """Return a directory of the record, every byte verified: where it is, if that will do, or in ``folder``.

    Without a ``folder`` nothing is brought anywhere, only verified.
    """
    wanted = record.directories[name]
    for path in _candidates(context, name, record):
        seal = read_seal(path)
        if seal is None or seal.digest != wanted.digest:
            continue
        found = path
        if folder and not wanted.linked and path != _own(context, name):
            found = folder / name
            shutil.rmtree(found, ignore_errors=True)
            if not _copied(path, found, (*seal.files, SENTINEL)):
                continue
        total = sum(file.size for file in seal.files.values())
        if verify_seal(found, advance=_Verification(context, f"checking what run {record.run} left", total)) is not None:
            return found
    raise _Unusable(f"its {name} is gone or damaged")


def _file(context: Context, folder: Path | None, name: str, record: Record) -> Path:
    """Return the same for a file."""
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
    """Links or copies; false where files cannot be read, or somebody deletes them right now."""
    try:
        for name in names:
            copy_or_link_file(source / name, target / name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return True


def _own(context: Context, name: str) -> Path:
    return context.path(f"{context.layout.root}/{name}")


def _candidates(context: Context, name: str, record: Record) -> list[Path]:
    """Return where something may be: in the cache, in this run's own folder (an earlier round's), in other runs."""
    roots = sorted(record.roots, key=lambda root: root != context.layout.root)
    directory = record.directories.get(name)
    cache = [directory.cache] if directory and directory.cache else []
    runs = [] if directory and directory.linked else [f"{root}/{name}" for root in roots]
    return [context.path(path) for path in (*cache, *runs)]


def _publish(context: Context, reuse: Reuse, record: Record, found: Mapping[str, Path], folder: Path) -> None:
    """All that was found to its place, in the order of the stage's own patterns.

    What an earlier round left there goes first, whole: at no moment does it are beside what belongs to this one.
    """
    root = context.path(context.layout.root)
    context.require_current()
    for number, old in enumerate(_matching(root, (*reuse.directories, *_named(context, reuse.files)))):
        name = str(old.relative_to(root))
        if found.get(name) != old and not (old.is_symlink() and name in found):
            old.rename(folder / f"replaced.{number}")
    for name, path in found.items():
        target = f"{context.layout.root}/{name}"
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
    owner = "an earlier round" if context.layout.root == record.roots[-1] else f"run {record.run}"
    metrics = {name: value for name, value in result.metrics.items() if name != "seconds"}
    message = f"the same as {owner}: {result.message}" if result.message else f"the same as {owner}"
    return Finished(result.outputs, metrics, result.history, message, result.warnings, reused=True)


def _add_root(context: Context, record: Record) -> None:
    """From now on it is here too, should the other runs be deleted."""
    others = [root for root in record.roots if root != context.layout.root]
    if len(others) == len(record.roots):
        # The first one stays the last: it says whose work it was.
        _write(context, replace(record, roots=(context.layout.root, *others[: _MAX_ROOTS - 2], *others[_MAX_ROOTS - 2 :][-1:])))


def _read(context: Context) -> Record | None:
    path = _path(context)
    if context.inputs_digest == NO_DIGEST:
        return None
    try:
        data = json.loads(path.read_bytes())
        record = decode(Record, data["record"])
        intact = digest(data["record"]) == data["digest"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
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
    """A volume that takes no more, or a cache that this user must not write, is no reason to fail a stage that is done."""
    try:
        write_file(_path(context), json.dumps({"digest": digest(record), "record": encode(record)}, allow_nan=False).encode())
    except OSError as error:
        print(f"{context.document.stage}: the result is not kept for other runs ({error})")


def _path(context: Context) -> Path:
    return context.path(f"{CACHE_RESULTS}/{context.document.stage}.{context.inputs_digest}.json")


def _named(context: Context, patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(pattern.format(stage=context.document.stage) for pattern in patterns)


def _matching(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


@contextmanager
def _folder(context: Context, publishing: bool) -> Iterator[Path | None]:
    """Where the result is brought together; a killed attempt's is removed, and so is this one in the end."""
    if not publishing:
        yield None
        return
    attempt = context.path(context.layout.attempt(context.document.stage, context.attempt))
    for left in attempt.parent.iterdir():
        if _order(left) <= context.attempt.order:
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
    except OSError:  # an unfinished download is beside it, or there is no such folder
        pass


@dataclass
class _Verification:
    """Tells how much of a directory was read again: for a large model that takes as long as its disk."""

    context: Context
    note: str
    total: int
    done: int = 0

    def __call__(self, more: int) -> None:
        self.done += more
        # No percentage: should it be damaged, all the work is still to come.
        self.context.report(Progress(0, note=f"{self.note}, {self.done / 10**6:.0f} of {self.total / 10**6:.0f} MB"))
