"""The processes of a control plane: detached, recorded in pid files, and ended by pid, also by other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02
_COLLECT_LATE = {"GOGC": "400"}
"""Go's garbage collector runs less often: memory is cheaper here than a third of the API server's processor time."""
_NEVER = "never"
"""In a pid file: the process had already ended."""


@dataclass(frozen=True)
class Process:
    """A process in a pid file. ``born`` distinguishes it from a later process with the same pid."""

    name: str
    pid: int
    born: str

    @classmethod
    def of(cls, name: str, pid: int) -> Process:
        """Return the process ``pid``, also if it has already ended."""
        return cls(name, pid, _birth(pid) or _NEVER)

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """Return the process of a pid file, or ``None`` if the file is missing or incomplete."""
        try:
            pid, born = path.read_text(encoding="utf-8").split(maxsplit=1)
            return cls(path.stem, int(pid), born)
        except (OSError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Write a pid file."""
        path.write_text(f"{self.pid} {self.born}", encoding="utf-8")

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return _birth(self.pid) == self.born

    @property
    def gone(self) -> bool:
        """Return whether it has ended completely. A child of this process is reaped."""
        if now := _birth(self.pid):
            return now != self.born
        try:
            return os.waitpid(self.pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            return True

    @property
    def resident_mb(self) -> float:
        """Return its resident memory in MB, or 0 if the system does not report it."""
        return float(_ps(self.pid, "rss") or 0) * 1024 / 1e6

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still exists."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Processes:
    """The processes with pid files and logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._pids, self._logs = folder / "pids", folder / "logs"

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Process:
        """Start a process in a new session: it survives this process, and Ctrl-C does not reach it."""
        self._pids.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(exist_ok=True)
        argv = [str(part) for part in command]
        log = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), log, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        variables = {**_COLLECT_LATE, **os.environ, **(environment or {})}
        pid = os.posix_spawn(argv[0], argv, variables, file_actions=files, setsid=True)
        process = Process.of(name, pid)
        process.write(self._pids / f"{name}.pid")
        return process

    def log(self, name: str) -> Path:
        """Return the path of the output of a process."""
        return self._logs / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the end of a log."""
        return "\n".join(self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def recorded(self) -> list[Process]:
        """Return all processes that were started and not stopped, running or not."""
        found = (Process.read(path) for path in sorted(self._pids.glob("*.pid")))
        return [process for process in found if process is not None]

    def stop(self, processes: Sequence[Process], grace: float) -> None:
        """Terminate processes, kill them after ``grace`` seconds, and wait until they have ended."""
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while (left := [process for process in processes if not process.gone]) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for process in left:
            process.signal(signal.SIGKILL)
        while not all(process.gone for process in left):
            time.sleep(_POLL_SECONDS)
        for process in processes:
            (self._pids / f"{process.name}.pid").unlink(missing_ok=True)


def _birth(pid: int) -> str:
    """Return the start time of a process as the system prints it; empty if it does not exist or is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.parent.parent.joinpath("self").exists():
        return "" if _ps(pid, "stat").startswith("Z") else _ps(pid, "lstart")
    try:
        # The name is in parentheses and may have any character; field 3 is the state, field 22 the start (proc_pid_stat(5)).
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _ps(pid: int, column: str) -> str:
    done = subprocess.run(["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()
