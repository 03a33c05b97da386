"""The namespaces of a node (network, mounts, processes), and the veth pair between them and this machine."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from controlplane.api import eventually
from controlplane.processes import Process, Processes

from . import inside
from .machine import program

STATE, PROGRAMS = "/run/node/state", "/run/node/programs"
"""Mount points of the node's folder and its programs; short, because paths of sockets are limited."""
SERVICES = "10.96.0.0/16"
ANCHOR = "anchor"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORKS = 4096


@dataclass(frozen=True)
class Network:
    """Both ends of the veth pair: a network of two addresses from the range for tests (RFC 2544)."""

    interface: str
    number: int

    @classmethod
    def of(cls, state: Path) -> Network:
        """Return the network of the node in the folder ``state``."""
        digest = hashlib.sha256(str(state).encode()).hexdigest()
        return cls(f"ftn{digest[:8]}", int(digest, 16) % _NETWORKS)

    @property
    def host(self) -> str:
        """Return the address of this machine."""
        return self._address(1)

    @property
    def node(self) -> str:
        """Return the address of the node."""
        return self._address(2)

    def _address(self, end: int) -> str:
        return f"198.18.{self.number // 64}.{self.number % 64 * 4 + end}"

    @property
    def is_up(self) -> bool:
        """Return whether the veth pair exists."""
        return Path("/sys/class/net", self.interface).exists()


class Namespaces:
    """The namespaces of a node, created by one process. Everything in them ends with it."""

    def __init__(self, folder: Path, network: Network, processes: Processes) -> None:
        self._folder, self.network, self._processes = folder, network, processes

    def open(self, programs: Path) -> None:
        """Create and connect them.

        Raises:
            OSError: a command of the system failed.
            TimeoutError: they did not come up.
        """
        self._folder.mkdir(parents=True)
        eventually(lambda: not self.network.is_up, "the cable of the node before is gone")
        command = [program("unshare"), "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
                   "--propagation=private", sys.executable, inside.__file__,
                   f"{self._folder}={STATE}", f"{programs}={PROGRAMS}"]  # fmt: skip
        self._processes.start(ANCHOR, command, {"PATH": _PATH})
        eventually((self._folder / inside.READY).exists, "the namespaces of the node are there")
        host, node, pid = self.network.host, self.network.node, str(self.first_process)
        _ip("link", "add", self.network.interface, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _ip("address", "add", f"{host}/30", "dev", self.network.interface)
        _ip("link", "set", self.network.interface, "up")
        for words in (["address", "add", f"{node}/30", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"],
                      ["route", "add", SERVICES, "via", host]):  # fmt: skip
            self.run(program("ip"), *words)

    @property
    def first_process(self) -> int:
        """Return the first process inside, with its pid on this machine."""
        return below(next(one for one in self._processes.recorded() if one.name == ANCHOR)).pid

    def enter(self, *command: str) -> list[str]:
        """Return the command that runs ``command`` inside, without this environment; it ends with this process."""
        where = [program("nsenter"), "--target", str(self.first_process), "--mount", "--net", "--pid", "--"]
        return [*where, program("env"), "-i", f"PATH={_PATH}", program("setpriv"), "--pdeathsig", "SIGTERM", "--", *command]

    def run(self, *command: str, content: Path | None = None) -> str:
        """Run a command inside to its end, with a file as its input, and return its output.

        Raises:
            OSError: it failed; the message has the end of its output.
        """
        with (content or Path("/dev/null")).open("rb") as source:
            return _output(self.enter(*command), source)

    def start(self, name: str, *command: str) -> Process:
        """Start a process inside in the background."""
        return self._processes.start(name, self.enter(*command))

    def close(self) -> None:
        """End them with everything inside."""
        for process in self._processes.recorded():
            if process.name == ANCHOR:
                process.signal(signal.SIGKILL)
                self._processes.stop([process], 1)
        eventually(lambda: not self.network.is_up, "the cable of the node is gone")


def below(process: Process) -> Process:
    """Return the program for which a process outside the namespaces waits, otherwise the process itself."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    waits = listed.exists() and Path(f"/proc/{process.pid}/comm").read_text(encoding="utf-8").strip() in ("nsenter", "unshare")
    children = listed.read_text(encoding="utf-8").split() if waits else []
    return Process.of(process.name, int(children[0])) if children else process


def _ip(*words: str) -> str:
    return _output([program("ip"), *words])


def _output(command: list[str], source: IO[bytes] | None = None) -> str:
    done = subprocess.run(command, stdin=source, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command[-8:])}: {done.stderr.strip()[-1000:]}")
    return done.stdout
