"""A call of Training Hub in a process of its own, whose output is printed, and whose end is that of all its descendants."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import finetune_stages

from .arguments import Arguments
from .process_tree import Member, process_tree, running, send

_POLL_SECONDS = 0.5
_GRACE = 5.0
"""Seconds for the processes to end after SIGTERM."""
_LONGEST_FOLDER = 60
"""Characters of the folder of temporary files. In a longer one the names of sockets of instructlab-training's workers are too long, and
it never ends."""
_LINES = 400
"""Lines of output that are kept for the cause of a failure."""


@dataclass(frozen=True)
class Ended:
    """End of a call: exit code, and the last lines of output."""

    code: int
    output: tuple[str, ...]


def run_call(function: str, arguments: Arguments, folder: Path, poll: Callable[[], object]) -> Ended:
    """Call a function of Training Hub and return how it ended; ``poll`` is called twice per second.

    The exit code alone proves nothing: the backends also exit with 0 if torchrun is not found or if they were stopped.
    """
    call = folder / "call.json"
    call.write_text(json.dumps({"function": function, "arguments": arguments}, indent=1))
    seen: set[Member] = set()
    with _process(call, seen) as process:
        lines: deque[str] = deque(maxlen=_LINES)
        reader = threading.Thread(target=_print, args=(process, lines), daemon=True)
        reader.start()
        while process.poll() is None:
            poll()
            seen |= process_tree(process.pid)
            time.sleep(_POLL_SECONDS)
        reader.join(_GRACE)
        poll()
        return Ended(process.returncode, tuple(lines))


@contextmanager
def _process(call: Path, seen: set[Member]) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(finetune_stages.__file__).parents[1])  # a folder, or the zip application
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1",
        # The backends look for torchrun on the path.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }  # fmt: skip
    if len(tempfile.gettempdir()) > _LONGEST_FOLDER:
        environment["TMPDIR"] = "/tmp"  # noqa: S108 - the folder is on every machine
    process = subprocess.Popen(  # noqa: S603 - this program
        [sys.executable, "-m", "finetune_stages.training.training_hub.child", str(call)], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        _end(process, seen)


def _print(process: subprocess.Popen[bytes], lines: deque[str]) -> None:
    assert process.stdout is not None, "it is a pipe"
    # With other newlines, each state of a progress bar would be a line.
    with io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="\n") as output:
        for line in output:
            text = line.rstrip("\n").rpartition("\r")[2]  # the last state of a progress bar
            lines.append(text)
            print(text, flush=True)


def _end(process: subprocess.Popen[bytes], seen: set[Member]) -> None:
    """End the process and its descendants: workers can outlive the process that started them, and can ignore SIGTERM."""
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, 1.0)):
        seen |= process_tree(process.pid)
        send(number, seen)
        end = time.monotonic() + seconds
        while time.monotonic() < end and running(seen):
            time.sleep(0.1)
    process.wait()
