"""Atomic publishing into a shared volume: write to a temporary name, seal, rename. Readers find all of it or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_contract import strict_json
from finetune_contract.codec import DocumentError, decode, digest, encode
from finetune_contract.workspace import SENTINEL

from .safe_files import NotRegular, create_file, open_regular, read_bounded

_CHUNK = 1 << 20
_COPIED_AT_ONCE = 1 << 30
_SEAL_LIMIT = 16 << 20
"""Bytes of a sentinel file: 100,000 files have less."""

Advance = Callable[[int], object]
"""Progress callback: called with the number of bytes read since the last call."""
Reader = Callable[[bytes], object]
"""Receives a file's bytes in chunks while its digest is computed, so that a large file is read once."""
Readers = Callable[[Path], Reader | None]
"""Returns the reader for a file; ``None`` if it has none."""


@dataclass(frozen=True)
class SealedFile:
    """A file of a sealed directory: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Seal:
    """Content of the sentinel file of a published directory.

    ``digest`` is the SHA-256 over the sorted names and digests of the files: directories with equal content have equal digests.
    ``note`` is the stage's own flat record about the directory.
    """

    digest: str
    files: dict[str, SealedFile]
    note: dict[str, str | int | float | bool]


def file_sha256(path: Path, advance: Advance | None = None, readers: Readers | None = None) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        NotRegular: it is a pipe or a device, which may have no end.
        OSError: it cannot be read.
    """
    reader = readers(path) if readers else None
    with open_regular(path) as stream:
        if advance is None and reader is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        state = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
            if reader is not None:
                reader(chunk)
            if advance is not None:
                advance(len(chunk))
        return state.hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Write ``path`` atomically: readers find the old content or the new, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with create_file(aside) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def seal_directory(
    directory: Path,
    note: dict[str, str | int | float | bool] | None = None,
    advance: Advance | None = None,
    readers: Readers | None = None,
    known: Mapping[str, SealedFile] | None = None,
) -> Seal:
    """Compute the digest of every file below ``directory``, write the sentinel last, and return the seal.

    ``known``: size and digest of files, by path in ``directory``, that this process has computed while it wrote them.
    """
    known = known or {}
    files = {
        name: known.get(name) or SealedFile(path.stat().st_size, file_sha256(path, advance, readers))
        for name, path in files_of(directory).items()
    }
    seal = Seal(digest({name: file.sha256 for name, file in files.items()}), files, note or {})
    write_file(directory / SENTINEL, json.dumps(encode(seal), indent=1, sort_keys=True).encode())
    return seal


def content_digest(directory: Path, advance: Advance | None = None) -> str:
    """Return the digest that the seal of a directory has if it is true: that of the names and digests of all files that are there."""
    files = {name: file_sha256(path, advance) for name, path in files_of(directory).items()}
    return digest({**files, **dict.fromkeys(_linked_folders(directory), "link")})


def read_seal(directory: Path) -> Seal | None:
    """Return the seal of a published directory; ``None`` if it is missing or unreadable."""
    try:
        text = read_bounded(directory / SENTINEL, _SEAL_LIMIT).decode()
        seal = decode(Seal, strict_json.loads(text, _SEAL_LIMIT))
    except (OSError, ValueError, DocumentError):
        return None
    return seal if all(map(is_below, seal.files)) else None


def is_below(name: str) -> bool:
    """Return whether a relative path stays below its directory. Paths in files of the volume are untrusted: other pods write there."""
    return not name.startswith("/") and ".." not in name.split("/")


def first_difference(directory: Path, seal: Seal) -> str | None:
    """Return how a directory differs from its seal, as far as names, types and sizes show it, without reading a file."""
    files = files_of(directory)
    for name in sorted(files.keys() ^ seal.files.keys()):
        return f"{name} is not in its seal" if name in files else f"{name} is missing"
    for name, path in files.items():
        try:
            about = path.stat()
        except OSError as error:  # a link to nothing, or to itself
            return f"{name} cannot be read ({error.strerror})"
        if not stat.S_ISREG(about.st_mode):
            return f"{name} is not a regular file"
        if about.st_size != seal.files[name].size:
            return f"{name} has {about.st_size:,} bytes, and its seal has {seal.files[name].size:,}"
    return None


def verify_seal(
    directory: Path, content: bool = True, advance: Advance | None = None, readers: Readers | None = None
) -> Seal | None:
    """Return the seal if every file in it exists with its digest; ``None`` for a damaged or unfinished directory.

    Without ``content`` only names and sizes are compared, which is fast for any size.
    """
    seal = read_seal(directory)
    if seal is None:
        return None
    for name, expected in seal.files.items():
        path = directory / name
        try:
            if path.stat().st_size != expected.size or (content and file_sha256(path, advance, readers) != expected.sha256):
                return None
        except OSError:
            return None
    return seal


def publish_directory(source: Path, target: Path) -> None:
    """Move a sealed directory to ``target`` and replace what is there.

    Two processes may publish equal content to one path of a shared cache: the second one replaces the files by equal ones.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old = source.with_name(f"{source.name}.replaced")
    for _ in range(3):
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            shutil.rmtree(old, ignore_errors=True)
            try:
                target.rename(old)
            except FileNotFoundError:
                pass
        try:
            source.rename(target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    else:
        raise OSError(errno.EBUSY, "another process keeps publishing to this path", str(target))
    shutil.rmtree(old, ignore_errors=True)


def link_directory(target: Path, place: Path) -> None:
    """Make ``place`` a relative link to ``target``, replaced atomically."""
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, place.parent), target_is_directory=True)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    aside.replace(place)


def copy_or_link_file(source: Path, target: Path) -> bool:
    """Hard-link a file if possible, else copy it, and return whether it is linked. The operation is atomic.

    Two mounts of one volume allow no links. There the file system copies the blocks or shares them, if it can (XFS, NFS 4.2, CephFS).

    Raises:
        FileNotFoundError: The source does not exist.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        linked = True
        try:
            os.link(source, aside)
        except OSError:
            linked = False
            _copy(source, aside)
        aside.replace(target)
        return linked
    finally:
        aside.unlink(missing_ok=True)  # also if both names already linked to one file: then the rename does nothing


def _copy(source: Path, target: Path) -> None:
    try:
        with open_regular(source) as reading, create_file(target) as writing:
            while os.copy_file_range(reading.fileno(), writing.fileno(), _COPIED_AT_ONCE):
                pass
    except (FileNotFoundError, NotRegular):
        raise
    except OSError:  # other file systems, or one without this call
        shutil.copyfile(source, target)


def _linked_folders(directory: Path) -> Iterable[str]:
    """Yield the relative paths of links to folders: libraries read the files behind them, and no seal has them."""
    for root, folders, _ in os.walk(directory):
        yield from (str(path.relative_to(directory)) for name in folders if (path := Path(root) / name).is_symlink())


def files_of(directory: Path) -> dict[str, Path]:
    """Return the files below a directory by their relative path, without the sentinel."""
    found = {}
    for root, folders, names in os.walk(directory):
        folders.sort()
        found.update(
            {str((path := Path(root) / name).relative_to(directory)): path for name in sorted(names) if name != SENTINEL}
        )
    return found
