"""Files of a volume to which other programs write, too.

A training program can leave a pipe, a device or a symbolic link where a later stage expects a file. Opening a pipe blocks, a device has no
end, and a link leads the stage to a file of another run.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path
from typing import BinaryIO

RESULT_FILE_LIMIT = 64 << 20
"""Bytes of a file with a result."""


class NotRegular(OSError):
    """A path is a pipe, a device, a socket or a folder, and not a regular file."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "is not a regular file", str(path))


def open_regular(path: Path) -> FileIO:
    """Open a regular file, or a link to one, for unbuffered reading, without waiting for another program.

    Raises:
        NotRegular: it is something else.
        OSError: it cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a device can have effects
        raise NotRegular(path)
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):  # it was replaced meanwhile
        stream.close()
        raise NotRegular(path)
    return stream


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises:
        NotRegular: it is something else.
        OSError: it is larger (``EFBIG``), or cannot be read.
    """
    content = bytearray()
    with open_regular(path) as stream:
        while len(content) <= limit and (chunk := stream.read(limit + 1 - len(content))):
            content += chunk
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit:,} bytes", str(path))
    return bytes(content)


def create_file(path: Path) -> BinaryIO:
    """Create a file and open it for writing. What has this name, such as a rest of a killed process or a link, is removed first.

    Raises:
        OSError: it cannot be created, for example because ``path`` is a folder, or another process has just created it.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "wb")


def without_links(path: str, flags: int) -> int:
    """Open a file, but not through a symbolic link at its name: an ``opener`` for :func:`open`."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def linked_folder(root: Path, relative: str) -> str | None:
    """Return the first folder of the path ``relative`` below ``root`` that is a symbolic link, ``None`` if there is none."""
    parts = Path(relative).parts
    paths = ("/".join(parts[:number]) for number in range(1, len(parts) + 1))
    return next((path for path in paths if (root / path).is_symlink()), None)
