"""The README's main job in an empty folder: wall time, the part of orchestration, and memory of the control plane.

Orchestration is the wall time in which no stage's process was alive. Target: at most 1 s a run, the whole job at most 4 minutes with the
base model kept (6 without), the control plane at most 120 MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import TASK_FILES, machine, spread

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).parent / "finetune")
RUNS = 3


def main() -> None:
    """Print the figures."""
    print("main job")
    print(machine())
    started = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "hack/example/prepare.py")], check=True, stdout=subprocess.DEVNULL)
    print(f"  preparing data and base model (quick if cached): {time.perf_counter() - started:.1f} s")
    measured = [_run() for _ in range(RUNS)]
    for name, unit in (("wall", "s"), ("stages", "s"), ("orchestration", "s"), ("control plane", "MB")):
        print(f"  {name}: {spread([one[name] for one in measured], unit)}")


def _run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        began = time.time()
        process = subprocess.Popen(
            [PROGRAM, "run", str(ROOT / "hack/example/finetunerun.yaml"), "--home", str(home), *TASK_FILES],
            stdout=subprocess.DEVNULL,
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.05)
        ended = time.time()
        if process.returncode != 0:
            raise SystemExit(f"run: failed with exit code {process.returncode}; see its log")
        busy = _union([_life(path) for path in (home / "pods").glob("*/started.json")])
    return {"wall": ended - began, "stages": busy, "orchestration": ended - began - busy, "control plane": peak}


def _life(started: Path) -> tuple[float, float]:
    """Return start and end of the process of a stage."""
    return json.loads(started.read_text())["startedAt"], json.loads(started.with_name("exit.json").read_text())["finishedAt"]


def _union(lives: list[tuple[float, float]]) -> float:
    """Return the seconds in which at least one process was alive."""
    total, until = 0.0, 0.0
    for start, end in sorted(lives):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main()
