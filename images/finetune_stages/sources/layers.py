"""Files of a container image: its layers are read one after the other, and later ones replace or remove files of earlier ones.

No name of a layer is ever a path on this machine: the content of each file is written to a numbered file, and names, links and removed
files are entries of a table.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from finetune_stages.sdk import StageError

from .formats import compression
from .origin import Origin

_CHUNK = 1 << 20
_REMOVED, _OPAQUE = ".wh.", ".wh..wh..opq"
"""Names by which a layer removes a file, or everything, of the layers below it (OCI image specification, "Whiteouts")."""
_MOST_MEMBERS, _MOST_ENTRIES = 200_000, 10_000
"""Largest numbers of files of a layer: of all, and of those below the directory."""
_MOST_HOPS = 40
_LONGEST_NAME = 255
_LARGEST_HEADER = 1 << 20
_RATIO, _LEAST = 200, 1 << 30
"""A layer may unpack to this many bytes, or to ``_RATIO`` times its size if that is more."""
_LONG_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class File:
    """A file of an image: where its content is, and its size in bytes."""

    path: Path
    size: int


@dataclass(frozen=True)
class Link:
    """A symbolic link of an image; ``target`` is as it is in the layer."""

    target: str


Entry = File | Link | None
"""An entry of the table; ``None`` is a directory."""


@dataclass
class FileTable:
    """The files of an image below one directory, by their paths.

    Attributes:
        name: the image in messages.
        top: the directory, without slashes around it; empty for all files.
        store: the folder for the contents.
        reserve: called with a number of bytes before they are written.
    """

    name: str
    origin: Origin
    top: str
    store: Path
    reserve: Callable[[int], object]
    entries: dict[str, Entry] = field(default_factory=dict)
    _number: int = 0
    _removals: int = 0

    def add_file(self, path: str, content: Path, digest: str, advance: Callable[[int], object]) -> None:
        """Add a layer that is one file; ``advance`` is called with the number of bytes.

        Raises:
            StageError: ``origin.damaged``: its path leads out of the image; ``origin.unreachable``: it has another digest.
        """
        with content.open("rb") as raw:
            self._require_digest(_Hashing(raw, advance), digest)
        layer = f"layer {digest}"
        self._put(self._normal(path, layer), File(content, content.stat().st_size), layer)

    def add_layer(self, archive: Path, digest: str, advance: Callable[[int], object]) -> None:
        """Add a layer, whose SHA-256 is computed while it is read; ``advance`` is called with the number of bytes.

        Raises:
            StageError: ``origin.damaged``: the layer is damaged, or it has a path or a kind of file that it must not have;
                ``origin.unreachable``: it has another digest.
        """
        layer = f"layer {digest}"
        added: dict[str, Entry] = {}
        removed: list[tuple[str, bool]] = []
        limit = max(_LEAST, _RATIO * archive.stat().st_size)
        with archive.open("rb") as raw:
            stream = _Hashing(raw, advance)
            try:
                self._read(_Bounded(_decompressed(archive, stream), limit), layer, added, removed)
            except _TooLargeError as error:
                raise self._bad(layer, f"unpacks to more than {limit >> 30} GiB") from error
            except _damages() as error:
                if isinstance(error, OSError) and error.errno:
                    raise  # an error of the disk
                self._require_digest(stream, digest)  # the cause is a damaged download
                raise self._bad(layer, f"is not a readable archive ({str(error).rstrip('.')})") from error
            self._require_digest(stream, digest)
        for path, opaque in removed:
            self._remove(path, keep_itself=opaque)
        for path, entry in added.items():
            self._put(path, entry, layer)
        if len(self.entries) > _MOST_ENTRIES:
            raise self._bad(layer, f"and the layers before it have more than {_MOST_ENTRIES:,} files")
        self._remove_unused()

    def _read(self, content: _Bounded, layer: str, added: dict[str, Entry], removed: list[tuple[str, bool]]) -> None:
        with tarfile.open(fileobj=cast("Any", content), mode="r|", bufsize=_CHUNK, tarinfo=_Info) as members:
            for number, member in enumerate(members):
                if number >= _MOST_MEMBERS or len(added) > _MOST_ENTRIES:
                    raise self._bad(
                        layer, f"has more than {_MOST_ENTRIES if len(added) > _MOST_ENTRIES else _MOST_MEMBERS:,} files"
                    )
                self._take(members, member, layer, added, removed)
        while content.read(_CHUNK):  # what follows the archive is a part of the layer
            pass

    def files_in(self, directory: str) -> dict[str, File]:
        """Return the files below a directory by their names relative to it, with links resolved.

        Raises:
            StageError: ``origin.damaged``: a link leads nowhere, or out of the directory of the image that is read.
        """
        start = f"{directory}/" if directory else ""
        found: dict[str, File] = {}
        for path, entry in sorted(self.entries.items()):
            if path.startswith(start) and entry is not None:
                target = self._resolve(path)
                if target is not None:
                    found[path.removeprefix(start)] = target
        return found

    def _take(
        self,
        members: tarfile.TarFile,
        member: tarfile.TarInfo,
        layer: str,
        added: dict[str, Entry],
        removed: list[tuple[str, bool]],
    ) -> None:
        path = self._normal(member.name, layer)
        directory, _, base = path.rpartition("/")
        if base == _REMOVED:
            raise self._bad(layer, f"has {path}, which names no file to remove")
        if base == _OPAQUE:
            self._note_removed(directory, True, layer, removed)
        elif base.startswith(_REMOVED):
            self._note_removed(f"{directory}/{base.removeprefix(_REMOVED)}".lstrip("/"), False, layer, removed)
        elif not self._is_below_top(path):
            return
        elif member.isdir():
            added.setdefault(path, None)
        elif member.issym():
            added[path] = Link(member.linkname)
        elif member.islnk():
            target = self._normal(member.linkname, layer)
            entry = added.get(target, self.entries.get(target))
            if entry is None:
                raise self._bad(layer, f"has a hard link {path} to {target}, which is not a file below /{self.top}")
            added[path] = entry
        elif member.issparse():  # its holes are not in the archive, so the limit of the layer does not count them
            raise self._bad(layer, f"has {path}, which is a sparse file")
        elif member.isreg():
            added[path] = self._store(members, member)
        else:
            raise self._bad(layer, f"has {path}, which is a device or a pipe")

    def _note_removed(self, path: str, opaque: bool, layer: str, removed: list[tuple[str, bool]]) -> None:
        """Note the removal of a file or a directory, unless it cannot contain a file of the table."""
        if path and not self._is_below_top(path) and not f"{self.top}/".startswith(f"{path}/"):
            return
        self._count_removal(layer)
        removed.append((path, opaque))

    def _count_removal(self, layer: str) -> None:
        """Count a removal: each one walks through the table."""
        self._removals += 1
        if self._removals > _MOST_ENTRIES:
            raise self._bad(layer, f"and the layers before it remove more than {_MOST_ENTRIES:,} files")

    def _store(self, members: tarfile.TarFile, member: tarfile.TarInfo) -> File:
        self.reserve(member.size)
        self._number += 1
        target = self.store / str(self._number)
        source = members.extractfile(member)
        assert source is not None  # a regular file
        with source, target.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                sink.write(chunk)
        return File(target, member.size)

    def _is_below_top(self, path: str) -> bool:
        return not self.top or path == self.top or path.startswith(f"{self.top}/")

    def _put(self, path: str, entry: Entry, layer: str) -> None:
        """Set an entry and the directories above it: a directory replaces a file, and a file replaces a directory with all that is in it."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            self.entries["/".join(parts[:depth])] = None
        if entry is not None and path in self.entries and self.entries[path] is None:
            self._count_removal(layer)
            self._remove(path, keep_itself=False)
        self.entries[path] = entry

    def _remove(self, path: str, *, keep_itself: bool) -> None:
        start = f"{path}/" if path else ""
        for other in [one for one in self.entries if one.startswith(start) or (one == path and not keep_itself)]:
            del self.entries[other]

    def _remove_unused(self) -> None:
        """Remove the contents that no entry has; hard links share one."""
        used = {entry.path for entry in self.entries.values() if isinstance(entry, File)}
        for path in self.store.iterdir():
            if path not in used:
                path.unlink()

    def _resolve(self, path: str) -> File | None:
        """Return the file that a path means; ``None`` for a directory."""
        asked, hops = path, 0
        while True:
            parts = path.split("/")
            for depth in range(1, len(parts) + 1):
                above = "/".join(parts[:depth])
                entry = self.entries.get(above)
                if isinstance(entry, Link):
                    hops += 1
                    path = "/".join([*self._target(above, entry).split("/"), *parts[depth:]])
                    break
            else:
                found = self.entries.get(path)
                if isinstance(found, File):
                    return found
                if path in self.entries or any(one.startswith(f"{path}/") for one in self.entries):
                    return None
                hops = _MOST_HOPS + 1
            if hops > _MOST_HOPS or not self._is_below_top(path):
                raise StageError(
                    self.origin.damaged,
                    f"{self.name}: {asked} is a link to a file that is not below /{self.top}; put the file itself into the image.",
                )

    @staticmethod
    def _target(path: str, link: Link) -> str:
        """Return the path that a link names; ``..`` above the root stays at the root."""
        parts = [] if link.target.startswith("/") else path.split("/")[:-1]
        for part in link.target.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)

    def _normal(self, name: str, layer: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._bad(layer, f"has the path {name[:200]!a}, which leads out of the image")
        if any(len(os.fsencode(part)) > _LONGEST_NAME or "\0" in part for part in parts):
            raise self._bad(layer, f"has the path {name[:200]!a}, which is not a valid name of a file")
        return "/".join(parts)

    def _require_digest(self, stream: _Hashing, digest: str) -> None:
        while stream.read(_CHUNK):
            pass
        found = f"sha256:{stream.hexdigest}"
        if found != digest:
            raise StageError(
                self.origin.unreachable, f"{self.name}: the download is damaged: layer {digest} has the digest {found}."
            )

    def _bad(self, layer: str, words: str) -> StageError:
        return StageError(self.origin.damaged, f"{self.name}: {layer} {words}; build and push the image again.")


class _TooLargeError(Exception):
    """A layer unpacks to more bytes than it may."""


class _Stream(Protocol):
    """What can be read in pieces."""

    def read(self, size: int, /) -> bytes: ...


class _Hashing:
    """Read access to a file, whose SHA-256 is computed on the way."""

    def __init__(self, stream: BinaryIO, advance: Callable[[int], object]) -> None:
        self._stream, self._advance, self._state = stream, advance, hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``."""
        data = self._stream.read(size)
        self._state.update(data)
        self._advance(len(data))
        return data

    @property
    def hexdigest(self) -> str:
        """The digest of what was read so far."""
        return self._state.hexdigest()


class _Bounded:
    """Read access to a decompressed layer up to a limit in bytes."""

    def __init__(self, stream: _Stream, limit: int) -> None:
        self._stream, self._room = stream, limit

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``."""
        data = self._stream.read(size)
        self._room -= len(data)
        if self._room < 0:
            raise _TooLargeError
        return data


class _Info(tarfile.TarInfo):
    """A member of an archive, without a header that would fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG_HEADERS and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header has {self.size:,} bytes")
        return cast("tarfile.TarInfo", super()._proc_member(archive))  # type: ignore[misc]


def _decompressed(path: Path, stream: _Hashing) -> _Stream:
    """Return the content of a layer: its compression is recognized by its first bytes."""
    with path.open("rb") as file:
        kind = compression(file.read(8))
    if kind == "gzip":
        return gzip.GzipFile(fileobj=cast("Any", stream))
    if kind == "Zstandard":
        return cast("_Stream", _zstandard().ZstdFile(stream))
    return stream


def _zstandard() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _damages() -> tuple[type[Exception], ...]:
    """Return the exceptions that damaged archives cause."""
    return (tarfile.TarError, EOFError, zlib.error, OSError, _zstandard().ZstdError)
