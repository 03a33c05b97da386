"""python hack/checks.py {check,test}: run every check, or every check and test, to the end, and print a table of the results.

The other runners run even if one fails. The exit code is the highest of all runners.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import progress

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
COVERED = "operator/finetune_operator/core/*,operator/finetune_operator/api/*,operator/finetune_contract/*"
INTERRUPTED = 130
OTHERS = ("node", "cluster", "compat", "contract", "faults", "local", "stages", "cli", "images", "reports")
"""Folders of tests that need what is built. The first ones wait most, and the last ones compute most."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Each worker of pytest keeps one processor busy. More threads of PyTorch would wait for one another."""
_POLL_SECONDS = 0.2
_COUNTS = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Runner:
    """One command.

    Attributes:
        name: in the table.
        command: program and arguments.
        counts: whether it is pytest, which writes a JUnit file.
    """

    name: str
    command: tuple[str, ...]
    counts: bool = False


@dataclass(frozen=True)
class Result:
    """The outcome of a runner.

    Attributes:
        code: exit code; 128 and the number of the signal that ended it.
        counts: tests by outcome; ``None`` if it does not run tests.
    """

    name: str
    code: int
    seconds: float
    counts: dict[str, int] | None


Lane = Sequence[Runner]
"""Runners that run one after the other."""


def phases(which: str, jobs: int) -> list[list[Lane]]:
    """Return the runners of ``check`` or of ``test``: phases one after the other, each with lanes that run at the same time.

    The tests of pure code run while prerequisites are built, which keeps one processor busy. The tests that need these follow.
    """
    python = str(BIN / "python")
    checks = [
        Runner("style", (str(BIN / "ruff"), "check", "-q", ".")),
        Runner("format", (str(BIN / "ruff"), "format", "-q", "--check", ".")),
        Runner("types", (str(BIN / "mypy"), f"--cache-dir={progress.cache() / 'mypy'}")),
        Runner("layers", (str(BIN / "lint-imports"), "--no-logo")),
        Runner("import cycles", (python, "hack/import_cycles.py")),
        Runner("generated files", (python, "hack/generate.py", "--check")),
    ]
    if which == "check":
        return [[checks]]
    coverage, options = str(BIN / "coverage"), ("-q", "-n", str(jobs), "--dist", "worksteal", "--durations=10")
    waiting = tuple(str(jobs + 1) if option == str(jobs) else option for option in options)  # a quarter of their time is waiting
    pure, others = ("tests/unit", "tests/property"), tuple(f"tests/{name}" for name in OTHERS)
    bytecode = Runner("byte code", (python, "hack/prerequisites", "bytecode"))
    prerequisites = Runner("prerequisites", (python, "hack/prerequisites", "compat", "controlplane", "containers"))
    unit = [
        Runner("unit, property", (coverage, "run", "-m", "pytest", *options, "-m", "not go", *pure), counts=True),
        Runner("coverage data", (coverage, "combine", "-q")),
        Runner("coverage 100 %", (coverage, "report", f"--include={COVERED}", "--fail-under=100")),
        Runner("model", (python, "-m", "pytest", *options, "tests/model"), counts=True),
    ]
    rest = [
        Runner("unit with Go", (python, "-m", "pytest", *options, "-m", "go", *pure), counts=True),
        Runner("other tests", (python, "-m", "pytest", *waiting, *others), counts=True),
    ]
    return [[[bytecode]], [[*checks, prerequisites], unit], [rest]]


def run_phase(lanes: Sequence[Lane]) -> list[Result]:
    """Run lanes at the same time, and return the results in the order of the lanes. Only the first prints while it runs."""
    stopped = threading.Event()
    with ThreadPoolExecutor(len(lanes)) as pool:
        others = [pool.submit(_run_lane, lane, stopped, live=False) for lane in lanes[1:]]
        first = _run_lane(lanes[0], stopped, live=True)
        return [*first, *(result for other in others for result in other.result())]


def _run_lane(lane: Lane, stopped: threading.Event, *, live: bool) -> list[Result]:
    results: list[Result] = []
    for runner in lane:
        if stopped.is_set():
            break
        results.append(run(runner, live=live, stopped=stopped))
        if results[-1].code == INTERRUPTED:
            stopped.set()
    return results


def run(runner: Runner, *, live: bool = True, stopped: threading.Event | None = None) -> Result:
    """Run one runner.

    Args:
        runner: what to run.
        live: print its output while it runs; otherwise when it has ended.
        stopped: ends a runner that is not live.
    """
    if live:
        print(f"\n== {runner.name}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report, output = Path(folder, "junit.xml"), Path(folder, "output")
        command = [*runner.command, *([f"--junitxml={report}"] if runner.counts else [])]
        environment = {**os.environ, **(_ONE_THREAD if runner.counts else {})}
        try:
            code = (
                subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
                if live
                else _run_quietly(command, environment, output, stopped)
            )
        except KeyboardInterrupt:
            code = INTERRUPTED
        except OSError as error:
            print(f"{runner.name}: {error}", file=sys.stderr)
            code = 127
        if not live:
            text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
            print(f"\n== {runner.name}\n{text}", end="", flush=True)
        counts = _counts(report) if runner.counts else None
    return Result(runner.name, code if code >= 0 else 128 - code, time.monotonic() - began, counts)


def _run_quietly(command: Sequence[str], environment: Mapping[str, str], output: Path, stopped: threading.Event | None) -> int:
    """Run a command with its output in a file, and end it if the phase is stopped."""
    with (
        output.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        while True:
            try:
                return process.wait(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if stopped is not None and stopped.is_set():
                    process.terminate()
                    process.wait()
                    return INTERRUPTED


def table(results: Sequence[Result]) -> str:
    """Return the results as a table, with a last line that names the runners that failed."""
    rows: list[tuple[str, ...]] = [("runner", "result", *_COUNTS, "time")]
    for one in results:
        counts = ["" if one.counts is None else str(one.counts.get(name, 0)) for name in _COUNTS]
        rows.append((one.name, "passed" if one.code == 0 else f"exit code {one.code}", *counts, f"{one.seconds:.0f} s"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    failed = [one.name for one in results if one.code != 0]
    return "\n".join([*lines, "", f"failed: {'; '.join(failed)}" if failed else "everything passed"])


def _counts(report: Path) -> dict[str, int]:
    """Return the counts of a JUnit file; none if pytest ended before it wrote the file."""
    if not report.exists():
        return {}
    suites = [suite.attrib for suite in ET.parse(report).iter("testsuite")]
    total, skipped, failed, errors = (
        sum(int(suite[name]) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    )
    return {"passed": total - skipped - failed - errors, "failed": failed + errors, "skipped": skipped}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the highest exit code of all runners."""
    parser = argparse.ArgumentParser(prog="python hack/checks.py", description=__doc__)
    parser.add_argument("which", choices=("check", "test"))
    parser.add_argument("--jobs", type=int, default=2, help="processes of pytest (2)")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    for lanes in phases(options.which, options.jobs):
        results += run_phase(lanes)
        if any(result.code == INTERRUPTED for result in results):
            break
    print(f"\n{table(results)}", flush=True)
    return max(result.code for result in results)


if __name__ == "__main__":
    raise SystemExit(main())
