"""The namespaces of a node (network, mounts, processes), and the cable between them and this machine."""

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
"""Where the node's folder and its programs appear inside: short, as the path of a socket must be."""
SERVICES = "10.96.0.0/16"
ANCHOR = "anchor"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORKS = 4096


@dataclass(frozen=True)
class Network:
    """Both ends of the cable: a network of two addresses, out of those that are kept for tests (RFC 2544)."""

    interface: str
    number: int

    @classmethod
    def of(cls, state: Path) -> Network:
        """The network of the node whose folder is ``state``."""
        digest = hashlib.sha256(str(state).encode()).hexdigest()
        return cls(f"ftn{digest[:8]}", int(digest, 16) % _NETWORKS)

    @property
    def host(self) -> str:
        """The address of this machine."""
        return self._address(1)

    @property
    def node(self) -> str:
        """The address of the node."""
        return self._address(2)

    def _address(self, end: int) -> str:
        return f"198.18.{self.number // 64}.{self.number % 64 * 4 + end}"

    @property
    def is_up(self) -> bool:
        """Whether the cable is there."""
        return Path("/sys/class/net", self.interface).exists()


class Namespaces:
    """A node's namespaces, made with one process and gone with it: killed in whatever way, it takes everything along."""

    def __init__(self, folder: Path, network: Network, processes: Processes) -> None:
        self._folder, self.network, self._processes = folder, network, processes

    def open(self, programs: Path) -> None:
        """Make them, and connect them.

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
        """The process inside that the namespaces end with, as this machine counts."""
        return below(next(one for one in self._processes.recorded() if one.name == ANCHOR)).pid

    def enter(self, *command: str) -> list[str]:
        """The command that runs ``command`` inside, without this process's environment; it ends when its starter does."""
        where = [program("nsenter"), "--target", str(self.first_process), "--mount", "--net", "--pid", "--"]
        return [*where, program("env"), "-i", f"PATH={_PATH}", program("setpriv"), "--pdeathsig", "SIGTERM", "--", *command]

    def run(self, *command: str, content: Path | None = None) -> str:
        """Run a command inside to its end, with the content of a file as its input; what it printed.

        Raises:
            OSError: it failed; the message has its last words.
        """
        with (content or Path("/dev/null")).open("rb") as source:
            return _output(self.enter(*command), source)

    def start(self, name: str, *command: str) -> Process:
        """Start a process inside that goes on."""
        return self._processes.start(name, self.enter(*command))

    def close(self) -> None:
        """End them with everything inside, at once."""
        for process in self._processes.recorded():
            if process.name == ANCHOR:
                process.signal(signal.SIGKILL)
                self._processes.stop([process], 1)
        eventually(lambda: not self.network.is_up, "the cable of the node is gone")


def below(process: Process) -> Process:
    """The program for which a process only waits, outside the namespaces; else the process itself."""
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
