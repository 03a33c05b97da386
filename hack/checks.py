"""python hack/checks.py {check,test}: run every check, or every check and test, to the end, and print a table of the results.

A runner that fails does not keep the next one from running. The exit code is that of the worst runner.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
COVERED = "operator/finetune_operator/core/*,operator/finetune_operator/api/*,operator/finetune_contract/*"
INTERRUPTED = 130
_COUNTS = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Runner:
    """One command.

    Attributes:
        name: as the table shows it.
        command: its words.
        counts: whether it is pytest, which counts its tests in a JUnit file.
    """

    name: str
    command: tuple[str, ...]
    counts: bool = False


@dataclass(frozen=True)
class Result:
    """How a runner ended.

    Attributes:
        counts: tests by outcome, or ``None`` where nothing is counted.
    """

    name: str
    code: int
    seconds: float
    counts: dict[str, int] | None


def runners(which: str, jobs: int) -> list[Runner]:
    """Return the runners of ``check`` or of ``test``, in their order."""
    python = str(BIN / "python")
    checks = [
        Runner("style", (str(BIN / "ruff"), "check", "-q", ".")),
        Runner("format", (str(BIN / "ruff"), "format", "-q", "--check", ".")),
        Runner("types", (str(BIN / "mypy"),)),
        Runner("layers", (str(BIN / "lint-imports"), "--no-logo")),
        Runner("generated files", (python, "hack/generate.py", "--check")),
    ]
    if which == "check":
        return checks
    coverage, options = str(BIN / "coverage"), ("-q", "-n", str(jobs), "--dist", "worksteal", "--durations=10")
    others = ("node", "cluster", "contract", "faults", "local", "model", "stages", "cli", "images", "reports")
    return [
        *checks,
        Runner("prerequisites", (python, "hack/prerequisites", "bytecode", "controlplane", "containers")),
        Runner("unit, property", (coverage, "run", "-m", "pytest", *options, "tests/unit", "tests/property"), counts=True),
        Runner("coverage data", (coverage, "combine", "-q")),
        Runner("coverage 100 %", (coverage, "report", f"--include={COVERED}", "--fail-under=100")),
        Runner("other tests", (python, "-m", "pytest", *options, *(f"tests/{name}" for name in others)), counts=True),
    ]


def run(runner: Runner) -> Result:
    """Run one runner. What it prints is on the screen."""
    print(f"\n== {runner.name}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "junit.xml")
        command = [*runner.command, *([f"--junitxml={report}"] if runner.counts else [])]
        try:
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
        except KeyboardInterrupt:
            code = INTERRUPTED
        except OSError as error:
            print(f"{runner.name}: {error}", file=sys.stderr)
            code = 127
        counts = _counts(report) if runner.counts else None
    return Result(runner.name, code if code >= 0 else 128 - code, time.monotonic() - began, counts)


def table(results: Sequence[Result]) -> str:
    """Return the results as a table, and a last line that names what failed."""
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
    """Return pytest's own counts; none where it ended before it wrote them."""
    if not report.exists():
        return {}
    suites = [suite.attrib for suite in ET.parse(report).iter("testsuite")]
    total, skipped, failed, errors = (
        sum(int(suite[name]) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    )
    return {"passed": total - skipped - failed - errors, "failed": failed + errors, "skipped": skipped}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code of the worst runner."""
    parser = argparse.ArgumentParser(prog="python hack/checks.py", description=__doc__)
    parser.add_argument("which", choices=("check", "test"))
    parser.add_argument("--jobs", type=int, default=2, help="processes of pytest (2)")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    for runner in runners(options.which, options.jobs):
        results.append(run(runner))
        if results[-1].code == INTERRUPTED:
            break
    print(f"\n{table(results)}", flush=True)
    return max(result.code for result in results)


if __name__ == "__main__":
    raise SystemExit(main())
