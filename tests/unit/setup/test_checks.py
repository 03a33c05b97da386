"""The runner of all checks and tests: each runs, and the worst decides."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import checks
from checks import Result, Runner

GOOD = "def test_one():\n    pass\n"
BAD = "import pytest\n\ndef test_one():\n    assert 1 == 2\n\ndef test_two():\n    pass\n\n@pytest.mark.skip\ndef test_three():\n    pass\n"


def python(program: str, name: str = "a") -> Runner:
    return Runner(name, (sys.executable, "-c", program))


def suite(folder: Path, name: str, text: str) -> Runner:
    (folder / f"test_{name}.py").write_text(text)
    words = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(folder),
        str(folder / f"test_{name}.py"),
    )
    return Runner(name, (sys.executable, *words), counts=True)


def test_a_runner_that_fails_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = [
        suite(tmp_path, "unit", BAD), python("raise SystemExit(2)", "types"), suite(tmp_path, "other", GOOD), python("", "style"),
    ]  # fmt: skip
    monkeypatch.setattr(checks, "phases", lambda _which, _jobs: [[chosen]])
    assert checks.main(["test"]) == 2
    printed = capfd.readouterr().out
    assert "1 failed, 1 passed, 1 skipped in" in printed, "pytest's own line stays"
    assert "1 passed in" in printed
    rows = {line.split()[0]: line.split()[1:-2] for line in printed.splitlines() if line.endswith(" s")}
    assert rows["unit"] == ["exit", "code", "1", "1", "1", "1"]
    assert rows["types"] == ["exit", "code", "2"]
    assert rows["other"] == ["passed", "1", "0", "0"]
    assert rows["style"] == ["passed"]
    assert printed.splitlines()[-1] == "failed: unit; types"


@pytest.mark.parametrize(
    ("program", "code"),
    [("", 0), ("raise SystemExit(5)", 5), ("import os; os.kill(os.getpid(), 9)", 137)],
    ids=["passes", "fails", "killed"],
)
def test_how_a_runner_ended_is_its_exit_code(program: str, code: int) -> None:
    assert checks.run(python(program)).code == code


def test_a_program_that_is_not_there_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert checks.run(Runner("types", ("/nonexistent/mypy",))).code == 127
    assert "types: [Errno 2] No such file or directory" in capfd.readouterr().err


def test_a_suite_that_ends_before_it_counts_is_a_failure_with_nothing_passed(tmp_path: Path) -> None:
    result = checks.run(suite(tmp_path, "dies", "import os\nos._exit(3)\n"))
    assert (result.code, result.counts) == (3, {})
    assert "exit code 3       0" in checks.table([result])


def test_the_interrupted_suite_ends_at_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    assert checks.main(["check"]) == checks.INTERRUPTED
    assert capfd.readouterr().out.splitlines()[-1] == "failed: style"


def test_lanes_run_at_the_same_time_and_a_quiet_one_prints_at_its_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each waits for a file that the other writes."""
    program = (
        "import pathlib, sys, time\nmine, other = map(pathlib.Path, sys.argv[1:])\nmine.touch()\nend = time.monotonic() + 20\n"
        "while not other.exists():\n    time.sleep(0.01)\n    if time.monotonic() > end: sys.exit(3)\nprint('met', mine.name)"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    lanes = [
        [Runner("first", (sys.executable, "-c", program, str(one), str(two))), python("print('then')", "second")],
        [Runner("quiet", (sys.executable, "-c", program, str(two), str(one))), python("raise SystemExit(4)", "last")],
    ]
    results = checks.run_phase(lanes)
    assert [(result.name, result.code) for result in results] == [("first", 0), ("second", 0), ("quiet", 0), ("last", 4)]
    printed = capfd.readouterr().out
    assert "== quiet\nmet two\n" in printed


def test_an_interrupted_lane_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    began = time.monotonic()
    results = checks.run_phase([[python("", "first"), python("", "second")], [python("import time; time.sleep(60)", "quiet")]])
    assert {result.name for result in results} <= {"first", "quiet"}
    assert {result.code for result in results} == {checks.INTERRUPTED}
    assert time.monotonic() - began < 30


def test_what_needs_go_runs_after_it_is_built() -> None:
    root = Path(__file__).parents[3]
    order = [[runner for lane in lanes for runner in lane] for lanes in checks.phases("test", 2)]
    built = next(number for number, found in enumerate(order) if any(one.name == "prerequisites" for one in found))
    early = [runner for found in order[: built + 1] for runner in found if runner.counts]
    assert [runner.name for runner in early] == ["unit, property", "model"]
    for runner in early:
        if "not go" not in runner.command:
            files = [path for word in runner.command if word.startswith("tests/") for path in (root / word).rglob("*.py")]
            assert files
            assert [path for path in files if re.search(r"crdlint|control_plane", path.read_text(encoding="utf-8"))] == []
    assert [runner.name for runner in order[-1]] == ["unit with Go", "other tests"]


def test_everything_that_passed_is_one_line() -> None:
    assert checks.table([Result("unit", 0, 61.4, {"passed": 3})]).splitlines() == [
        "runner  result  passed  failed  skipped  time",
        "unit    passed       3       0        0  61 s",
        "",
        "everything passed",
    ]


def test_every_folder_of_tests_has_a_runner() -> None:
    root = Path(__file__).parents[3]
    folders = {path.parent.relative_to(root / "tests").parts[0] for path in (root / "tests").glob("*/**/test_*.py")}
    words = {word for lanes in checks.phases("test", 2) for lane in lanes for runner in lane for word in runner.command}
    assert {f"tests/{folder}" for folder in folders} - words == set()
