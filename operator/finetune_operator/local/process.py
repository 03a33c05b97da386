"""A process under a shim: start it, adopt it after a restart of the kubelet, stop it, and read its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_SHIM = Path(__file__).with_name("shim.py")
_POLL_SECONDS = 0.1
_START_SECONDS = 3.0
"""How long a shim may take to start the process, in seconds."""


@dataclass(frozen=True)
class Command:
    """A command: program and arguments, complete environment, working directory."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path


@dataclass(frozen=True)
class Exit:
    """The end of a process: its exit code, 128 + n for signal n, and the time."""

    code: int
    finished_at: datetime
    known: bool = True
    """False if the exit code is unknown, because the shim was killed or the machine went down."""


class Process:
    """A process that is recorded in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shim: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / "log"

    @property
    def started_at(self) -> datetime | None:
        """The start time, ``None`` if it has not started."""
        record = _read(self.folder / "started.json")
        return None if record is None else datetime.fromtimestamp(record["startedAt"], UTC)

    async def start(self, command: Command) -> None:
        """Start it. The shim has its own session, so that Ctrl-C at the terminal reaches only the kubelet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"argv": command.argv, "env": command.env, "cwd": str(command.cwd)}
        path = self.folder / "command.json"
        path.touch(mode=0o600)  # the environment may hold secrets
        path.write_text(json.dumps(record), encoding="utf-8")
        self._shim = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_SHIM), str(self.folder), start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    async def adopt(self) -> bool:
        """Return whether an earlier kubelet started the process. If not, no late shim can start it any more."""
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not (self.folder / "started.json").exists():
            if not (self.folder / "command.json").exists() or asyncio.get_running_loop().time() > deadline:
                self._forget_secrets()  # a late shim finds no command
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def wait(self) -> Exit:
        """Wait until it ends, whichever kubelet started it."""
        if self._shim is not None:
            await self._shim.wait()
        while (found := self._exit()) is None:
            if not self._shim_alive():
                found = self._exit() or self._lost()
                break
            await asyncio.sleep(_POLL_SECONDS)
        self._forget_secrets()
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process group."""
        record = _read(self.folder / "started.json")
        if record is None or self._exit() is not None:
            return
        try:
            os.killpg(record["pid"], number)
        except ProcessLookupError:
            return

    def _exit(self) -> Exit | None:
        record = _read(self.folder / "exit.json")
        return None if record is None else Exit(record["exitCode"], datetime.fromtimestamp(record["finishedAt"], UTC))

    def _shim_alive(self) -> bool:
        record = _read(self.folder / "started.json")
        return record is not None and _runs(record["shim"], str(self.folder))

    def _lost(self) -> Exit:
        """Return the end of a process whose shim was killed; kill the process if it still runs."""
        self.signal(signal.SIGKILL)
        return Exit(128 + signal.SIGKILL, datetime.now(UTC), known=False)

    def _forget_secrets(self) -> None:
        (self.folder / "command.json").unlink(missing_ok=True)


def _read(path: Path) -> dict[str, int] | None:
    try:
        record: dict[str, int] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record


def _runs(pid: int, argument: str) -> bool:
    """Return whether ``pid`` is alive and has ``argument`` on its command line: the system reuses process IDs."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:  # no /proc on this system
        return True
