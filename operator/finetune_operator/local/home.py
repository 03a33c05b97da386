"""The folder with the state of local mode, by default ``.finetune`` in the working directory.

::

    .finetune/
      lock             held by the command that drives the runs
      store.db         the objects
      volumes/<namespace>/<claim>/   the workspaces
      pods/<uid>/      the processes: logs, termination messages, exit codes
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "FINETUNE_HOME"
DEFAULT_HOME = ".finetune"
_LOCK_ATTEMPTS = 4
_LOCK_PAUSE_SECONDS = 0.05


class HomeInUse(Exception):
    """Another command drives the runs of this folder.

    Attributes:
        home: the folder.
        holder: the command's process id, 0 if unknown.
    """

    def __init__(self, home: Path, holder: int) -> None:
        super().__init__(f"{home} is in use by process {holder}")
        self.home = home
        self.holder = holder


class HomeUnusable(Exception):
    """The folder cannot be used; the message has the reason."""


@dataclass(frozen=True)
class Home:
    """The folder of local mode."""

    root: Path

    @classmethod
    def find(cls, given: Path | None) -> Home:
        """Return the given folder, else that of ``FINETUNE_HOME``, else ``.finetune`` in the working directory."""
        return cls((given or Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)).expanduser().absolute())

    @property
    def exists(self) -> bool:
        """Whether the folder has an object store."""
        return self.store.exists()

    @property
    def store(self) -> Path:
        """The file of the object store."""
        return self.root / "store.db"

    @property
    def volumes(self) -> Path:
        """The folder with a folder for each PersistentVolumeClaim."""
        return self.root / "volumes"

    @property
    def pods(self) -> Path:
        """The folder with a folder for each pod."""
        return self.root / "pods"

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            HomeUnusable: the folder cannot be created or written.
        """
        try:
            for folder in (self.root, self.volumes, self.pods):
                folder.mkdir(parents=True, exist_ok=True)
            (self.root / ".gitignore").write_text("*\n")
        except OSError as error:
            raise HomeUnusable(f"{self.root}: cannot be created: {error.strerror}; choose another folder with --home.") from error

    @property
    def is_locked(self) -> bool:
        """Whether a command holds the lock: it drives the runs of the folder."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one command. The kernel releases the lock when the process ends.

        Raises:
            HomeInUse: another command holds the lock.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o664)
        try:
            if not _lock(descriptor):
                raise HomeInUse(self.root, _holder(descriptor))
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Return whether the exclusive lock could be taken. Retries, because :attr:`Home.is_locked` holds the lock for a moment."""
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_PAUSE_SECONDS)
        if _try_lock(descriptor, fcntl.LOCK_EX):
            return True
    return False


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else 0
