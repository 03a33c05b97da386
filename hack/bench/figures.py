"""Output of all benchmarks: the machine, and each figure as a median with its spread."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TASK_FILES = ("--configmap", "python-docs-tasks=~/.cache/finetune-operator/example/tasks")
"""Options of ``finetune run`` for the example."""


def machine() -> str:
    """Return a line with the machine and its load."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"machine: {os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]},"
        f" Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}"
    )


def spread(values: Sequence[float], unit: str, scale: float = 1.0) -> str:
    """Return ``median 12.3 ms (11.9 to 14.0, n=9)``."""
    scaled = [value * scale for value in values]
    return f"median {statistics.median(scaled):.3g} {unit} ({min(scaled):.3g} to {max(scaled):.3g}, n={len(scaled)})"


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds of each of ``repeats`` calls, after one for warm-up."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def command(*words: str) -> Callable[[], None]:
    """Return a command as a call, which raises if it fails."""

    def call() -> None:
        subprocess.run(words, check=True, capture_output=True)

    return call


@dataclass(frozen=True)
class Measured:
    """Seconds, and peak resident memory in MB, of a process and its children."""

    wall: float
    cpu: float
    memory: float


def measured(words: Sequence[str], place: Path) -> Measured:
    """Run a command with ``place`` as its home and working directory, without a hub; its output is in the file ``log`` there.

    Raises:
        SystemExit: the command failed.
    """
    environment = {**os.environ, "HOME": str(place), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    with (place / "log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(words, cwd=place, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit((place / "log").read_text()[-2000:])
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)
