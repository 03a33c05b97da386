"""Where local mode keeps its state: one folder, by default ``.finetune`` in the working directory.

::

    .finetune/
      lock             held by the one command that drives runs here
      store.db         the objects
      volumes/<namespace>/<claim>/   the workspaces
      pods/<uid>/      the processes: logs, termination messages, how they ended
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "FINETUNE_HOME"
DEFAULT_HOME = ".finetune"


class HomeInUse(Exception):
    """Another command drives the runs of this folder; ``holder`` is its process id, 0 if unknown."""

    def __init__(self, home: Path, holder: int) -> None:
        super().__init__(f"{home} is in use by process {holder}")
        self.home = home
        self.holder = holder


class HomeUnusable(Exception):
    """The folder cannot be used: the message says why."""


@dataclass(frozen=True)
class Home:
    """The folder."""

    root: Path

    @classmethod
    def find(cls, given: Path | None) -> Home:
        """The folder that was given, that ``FINETUNE_HOME`` names, or ``.finetune`` here."""
        return cls((given or Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)).expanduser().absolute())

    @property
    def exists(self) -> bool:
        """Whether anything was ever run here."""
        return self.store.exists()

    @property
    def store(self) -> Path:
        """The object store."""
        return self.root / "store.db"

    @property
    def volumes(self) -> Path:
        """The claims."""
        return self.root / "volumes"

    @property
    def pods(self) -> Path:
        """The processes."""
        return self.root / "pods"

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            HomeUnusable: that is not possible.
        """
        try:
            for folder in (self.root, self.volumes, self.pods):
                folder.mkdir(parents=True, exist_ok=True)
            (self.root / ".gitignore").write_text("*\n")
        except OSError as error:
            raise HomeUnusable(f"{self.root}: {error.strerror}; choose another folder with --home.") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one command. The kernel lets go when the process ends, however it ends.

        Raises:
            HomeInUse: another command holds it.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o664)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise HomeInUse(self.root, _holder(descriptor)) from error
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)


def _holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else 0
