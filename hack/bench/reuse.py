"""A run that reuses every result: the README's main job a second time, under another name, in the same home.

Only the registration runs again. Target: at most 3 s for the second run, and at most 0.15 s for each stage's process, beside a
bare Python.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import TASK_FILES, command, machine, spread, timed

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).parent / "finetune")
REPEATS = 5


def main() -> None:
    """Print the figures."""
    print("reuse")
    print(machine())
    subprocess.run([sys.executable, str(ROOT / "hack/example/prepare.py")], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        home, ended = Path(folder) / "home", set[Path]()
        first, _ = _run(Path(folder), home, "example")
        _lives(home, ended)
        times, lives = [], dict[str, list[float]]()
        for number in range(REPEATS):
            times.append(_run(Path(folder), home, f"again-{number}"))
            _require_reused(home, f"again-{number}")
            for stage, life in _lives(home, ended).items():
                lives.setdefault(stage, []).append(life)
    print(f"  the first run: {first:.1f} s")
    print(f"  a run with everything reused: {spread([wall for wall, _ in times], 's')}")
    print(f"  CPU of that, all processes: {spread([cpu for _, cpu in times], 's')}")
    print(f"  python -c pass (baseline of the processes): {spread(timed(command(sys.executable, '-c', 'pass'), 9), 's')}")
    for stage, values in lives.items():
        print(f"  process of {stage}: {spread(values, 's')}")


def _run(folder: Path, home: Path, name: str) -> tuple[float, float]:
    """Return wall and CPU seconds of a run of the example, with the processes of its stages."""
    path = _named(folder, name)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([PROGRAM, "run", str(path), "--home", str(home), *TASK_FILES], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _named(folder: Path, name: str) -> Path:
    """Write the example under another name."""
    text = (ROOT / "hack/example/finetunerun.yaml").read_text()
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("  name: python-signatures\n", f"  name: {name}\n", 1))
    return path


def _require_reused(home: Path, name: str) -> None:
    (folder,) = home.glob(f"volumes/*/*/runs/{name}-*/results")
    for stage in ("dataset", "model", "tokenization", "training", "baseline", "evaluation"):
        if not json.loads((folder / f"{stage}.json").read_text())["reused"]:
            raise SystemExit(f"{name}: {stage} was not reused")


def _lives(home: Path, seen: set[Path]) -> dict[str, float]:
    """Return the lifetime of the processes of new pods in seconds, by stage."""
    lives = {}
    for path in set(home.glob("pods/*/exit.json")) - seen:
        seen.add(path)
        started = json.loads(path.with_name("started.json").read_text())["startedAt"]
        lives[_stage(path.parent)] = json.loads(path.read_text())["finishedAt"] - started
    return lives


def _stage(pod: Path) -> str:
    result = json.loads((pod / "termination-log").read_text())
    return str(result["finetune"]["stage"])


if __name__ == "__main__":
    main()
