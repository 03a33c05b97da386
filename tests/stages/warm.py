"""Stage programs as forks of a process that has imported PyTorch and more, which is half of the processor time of a small stage.

A program is otherwise what ``python -m`` runs: it has its own arguments, environment, working directory, output and session. No library that
reads environment variables at its import (``huggingface_hub``, ``transformers``) is imported before the fork. The forkserver of
``multiprocessing`` does not serve here: it ends its children without the interpreter's exit handlers, and gives them no output of their own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import psutil

_SET_CHILD_SUBREAPER = 36
_REQUEST_BYTES = 1 << 20
_SLOW_IMPORTS = (
    "aiohttp", "fsspec", "httpx2", "nltk", "pandas", "pyarrow.dataset", "pyarrow.parquet", "sacrebleu", "scipy.stats", "sklearn.metrics",
    "torch", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor",
)  # fmt: skip
"""What the libraries of the stages import, except what reads environment variables at its import."""


class WarmProgram:
    """A program that another process forked, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, pid: int, output: int, errors: int) -> None:
        """Take over a child of this process and the pipes of its output."""
        self.pid = pid
        self._process = psutil.Process(pid)
        self.stdout, self.stderr = open(output), open(errors)  # noqa: SIM115 - pipes

    @property
    def returncode(self) -> int | None:
        """Exit code, or the negative number of the signal that ended it; ``None`` while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended."""
        try:
            return int(self._process.wait(timeout))
        except psutil.TimeoutExpired:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return its output and errors when it has ended."""
        with ThreadPoolExecutor(2) as pool:
            texts = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()  # so that the pipes end
                raise
        self.stdout.close()
        self.stderr.close()
        return texts[0].result(), texts[1].result()

    def send_signal(self, number: int) -> None:
        """Send a signal to it unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class WarmStarter:
    """A process with PyTorch, whose forks become children of the process that asks for them."""

    def __init__(self) -> None:
        """Start the process; it imports in the background."""
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": "/nonexistent"},
            )  # fmt: skip

    def start(self, module: str, environment: Mapping[str, str], cwd: Path) -> WarmProgram:
        """Run ``python -m module`` in a session of its own."""
        (output, its_output), (errors, its_errors) = os.pipe(), os.pipe()
        request = json.dumps([module, dict(environment), str(cwd)]).encode()
        with _adopting_orphans():
            socket.send_fds(self._requests, [request], [its_output, its_errors])
            os.close(its_output)
            os.close(its_errors)
            return WarmProgram(int(self._requests.recv(64)), output, errors)

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        self._process.wait()


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Become the parent of a grandchild whose parent ends, so that it can be waited for."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _serve(requests: socket.socket) -> str | None:
    """Fork twice for each request, so that the program is an orphan. Return the name of its module, in the program only."""
    while True:
        request, ends, *_ = socket.recv_fds(requests, _REQUEST_BYTES, 2)
        if not request:
            return None
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.001)
            return _become(requests, request, ends)
        for end in ends:
            os.close(end)
        os.waitpid(between, 0)


def _become(requests: socket.socket, request: bytes, ends: list[int]) -> str:
    """Make this process what a new one would be, and send its ID."""
    module, environment, cwd = json.loads(request)
    os.setsid()
    for end, standard in zip(ends, (1, 2), strict=True):
        os.dup2(end, standard)
        os.close(end)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    requests.send(str(os.getpid()).encode())
    requests.close()
    return str(module)


if __name__ == "__main__":
    for name in _SLOW_IMPORTS:
        import_module(name)
    gc.freeze()
    program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if program is not None:
        sys.argv[:] = [program]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program, run_name="__main__", alter_sys=True)
